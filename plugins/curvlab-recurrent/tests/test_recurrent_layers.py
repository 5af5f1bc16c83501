"""Every recurrent module, in every setting: the unrolled forward is torch's, and its maps keep the contract."""

from __future__ import annotations

import itertools

import curvlab_recurrent  # noqa: F401 - registers the adapters
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._pytree import tree_leaves

from curvlab.capture.survey import survey
from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import Unrolled, adapt
from curvlab.testing import check_layer

N, T, IN, HIDDEN = 5, 4, 3, 6
KINDS = {
    "lstm": (nn.LSTM, {}),
    "lstm-projected": (nn.LSTM, {"proj_size": 2}),
    "gru": (nn.GRU, {}),
    "rnn-tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "rnn-relu": (nn.RNN, {"nonlinearity": "relu"}),
}
CELLS = {
    "lstm": (nn.LSTMCell, {}),
    "gru": (nn.GRUCell, {}),
    "rnn-tanh": (nn.RNNCell, {"nonlinearity": "tanh"}),
    "rnn-relu": (nn.RNNCell, {"nonlinearity": "relu"}),
}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
SHAPES = [
    dict(zip(("num_layers", "bidirectional", "bias"), v, strict=True))
    for v in itertools.product((1, 2), *[(False, True)] * 2)
]

kinds = pytest.mark.parametrize("kind", KINDS)
cells = pytest.mark.parametrize("kind", CELLS)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()))
states = pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])


def sequence(kind: str, **options: object) -> nn.RNNBase:
    base, own = KINDS[kind]
    torch.manual_seed(0)
    return base(IN, HIDDEN, **own, **options).double()


def cell(kind: str, bias: bool = True) -> nn.RNNCellBase:
    base, own = CELLS[kind]
    torch.manual_seed(0)
    return base(IN, HIDDEN, bias=bias, **own).double()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def initial(module: nn.Module, *batch: int) -> Tensor | tuple[Tensor, Tensor]:
    """A random hx; `batch` is (N,) or () for an unbatched call."""
    lead = (module.num_layers * (1 + module.bidirectional),) if isinstance(module, nn.RNNBase) else ()
    h = random(*lead, *batch, getattr(module, "proj_size", 0) or HIDDEN)
    return (h, random(*lead, *batch, HIDDEN)) if isinstance(module, nn.LSTM | nn.LSTMCell) else h


def unrolled(module: nn.Module, *args: object) -> object:
    """The adapter's forward, with a tap that checks each application against the matrix W̄ of its layer."""
    adapted = adapt(module)
    assert isinstance(adapted, Unrolled)
    seen = set()

    def tap(name: str, x: Tensor, y: Tensor) -> Tensor:
        layer = adapted.layers[name]
        a = layer.features(x)
        ones = a.new_ones(*a.shape[:-1], int(layer.biased))
        s = torch.einsum("goj,gnsj->gnso", layer.matrix(layer.parameters), torch.cat([a, ones], dim=3))
        torch.testing.assert_close(layer.outputs(y), s, rtol=0, atol=1e-12)
        seen.add(name)
        return y

    output = adapted.forward(tap, *args)
    assert seen == set(adapted.layers)
    return output


def assert_same(mine: object, own: object) -> None:
    assert type(mine) is type(own)
    for a, b in zip(tree_leaves(mine), tree_leaves(own), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


class SequenceFirst(nn.Module):
    """A network whose examples come first around a module whose time comes first."""

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = module

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.rnn(x.transpose(0, 1))[0].transpose(0, 1)
        return output


@kinds
@shapes
@states
@pytest.mark.parametrize("layout", ["batch-first", "time-first", "unbatched", "unbatched-batch-first"])
def test_unrolled_sequence_returns_what_torch_returns(
    kind: str, shape: dict[str, int], given: bool, layout: str
) -> None:
    module = sequence(kind, batch_first=layout.endswith("batch-first"), **shape)
    single = layout.startswith("unbatched")
    x = random(T, IN) if single else random(N, T, IN) if layout == "batch-first" else random(T, N, IN)
    hx = [initial(module, *() if single else (N,))] if given else []
    assert_same(unrolled(module, x, *hx), module(x, *hx))


@cells
@states
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch", [(N,), ()], ids=["batched", "unbatched"])
def test_unrolled_cell_returns_what_torch_returns(kind: str, given: bool, bias: bool, batch: tuple[int, ...]) -> None:
    module = cell(kind, bias)
    hx = [initial(module, *batch)] if given else []
    x = random(*batch, IN)
    assert_same(unrolled(module, x, *hx), module(x, *hx))


@kinds
@shapes
@states
def test_sequence_keeps_the_layer_contract(kind: str, shape: dict[str, int], given: bool) -> None:
    module = sequence(kind, batch_first=True, **shape)
    x = random(N, T, IN)
    check_layer(module, (x, initial(module, N)) if given else x)


@kinds
def test_time_first_sequence_keeps_the_layer_contract(kind: str) -> None:
    check_layer(SequenceFirst(sequence(kind, bidirectional=True)), random(N, T, IN))


@kinds
def test_as_many_time_steps_as_examples_are_not_mixed_up(kind: str) -> None:
    check_layer(SequenceFirst(sequence(kind, bidirectional=True)), random(N, N, IN))


@cells
@states
@pytest.mark.parametrize("bias", [False, True])
def test_cell_keeps_the_layer_contract(kind: str, given: bool, bias: bool) -> None:
    module = cell(kind, bias)
    x = random(N, IN)
    check_layer(module, (x, initial(module, N)) if given else x)


class OwnLoop(nn.Module):
    """A network that runs a cell over time by itself."""

    def __init__(self, module: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = module

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs, dim=1)


@cells
def test_cell_in_a_loop_keeps_the_layer_contract(kind: str) -> None:
    model = OwnLoop(cell(kind))
    check_layer(model, random(N, T, IN))
    assert {name: b.positions for name, b in survey(model, random(N, T, IN)).blocks.items()} == {
        "cell.ih": T,
        "cell.hh": T,
    }


class Twice(nn.Module):
    """One module run twice, from its own last state the second time."""

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = module

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.rnn(x)
        output: Tensor = self.rnn(x.flip(1), state)[0] + y
        return output


@kinds
def test_module_run_twice_keeps_the_layer_contract(kind: str) -> None:
    check_layer(Twice(sequence(kind, batch_first=True)), random(N, T, IN))


class Folded(nn.Module):
    """Sentences of documents: the examples of the module are several for each example of the network."""

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = module

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.rnn(x.flatten(0, 1))[0].unflatten(0, x.shape[:2])
        return output


@kinds
@pytest.mark.parametrize("steps", [T, N], ids=["", "as-many-steps-as-examples"])
def test_sequences_folded_into_the_batch_keep_the_layer_contract(kind: str, steps: int) -> None:
    check_layer(Folded(sequence(kind, batch_first=True)), random(N, 2, steps, IN))


@kinds
def test_dropout_draws_the_masks_that_torch_draws(kind: str) -> None:
    module = sequence(kind, num_layers=3, bidirectional=True, batch_first=True, dropout=0.4).train()
    x = random(N, T, IN)
    torch.manual_seed(1)
    mine = adapt(module).forward(lambda name, x, y: y, x)
    after = torch.random.get_rng_state()
    torch.manual_seed(1)
    own = module(x)
    assert_same(mine, own)
    assert torch.equal(after, torch.random.get_rng_state())
    gradients = [torch.autograd.grad(output[0].square().sum(), list(module.parameters())) for output in (mine, own)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert not torch.equal(module(x)[0], own[0])
    module.eval()
    assert_same(adapt(module).forward(lambda name, x, y: y, x), module(x))


@pytest.mark.parametrize("kind", ["lstm-projected", "gru", "rnn-tanh"])
def test_maps_are_named_and_grouped_by_gate(kind: str) -> None:
    module = sequence(kind, num_layers=2, bidirectional=True, batch_first=True)
    found = survey(nn.Sequential(module), random(N, T, IN))
    assert found.refused == {}
    maps = ["ih", "hh", *(["hr"] if module.proj_size else [])]
    places = [f"l{k}{direction}" for k in (0, 1) for direction in ("", "_reverse")]
    assert set(found.blocks) == {f"0.{m}_{place}" for place in places for m in maps}
    gates = GATES[type(module).__name__]
    for name, block in found.blocks.items():
        short = name.removeprefix("0.")
        assert block.parameters["weight"] == f"0.weight_{short}"
        assert block.parameters.get("bias") == (None if short.startswith("hr") else f"0.bias_{short}")
        assert block.positions == T
        assert block.tied == []
        assert block.layer.groups == (1 if short.startswith("hr") else gates)


def test_gates_share_the_memory_of_their_features() -> None:
    layer = adapt(sequence("lstm", batch_first=True)).layers["ih_l0"]
    x = random(N, T, IN)
    assert layer.features(x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert layer.second_moment(x, torch.float64).second.stride(0) == 0


def test_packed_sequence_is_refused_with_a_reason() -> None:
    packed = pack_padded_sequence(random(T, N, IN), torch.tensor([4, 4, 3, 2, 1]))
    with pytest.raises(UnsupportedLayer, match="LSTM was called with a PackedSequence: its examples differ in"):
        adapt(sequence("lstm")).forward(lambda name, x, y: y, packed)


@pytest.mark.parametrize(("width", "examples"), [(IN + 1, N), (IN, N + 1), (IN, 1)])
def test_wrong_sizes_raise_torch_s_own_errors(width: int, examples: int) -> None:
    module = sequence("lstm", batch_first=True)
    x, hx = random(N, T, width), initial(module, examples)
    with pytest.raises(RuntimeError) as own:
        module(x, hx)
    with pytest.raises(RuntimeError) as mine:
        adapt(module).forward(lambda name, x, y: y, x, hx)
    assert str(mine.value) == str(own.value)

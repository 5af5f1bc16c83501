"""Small networks from ONNX files: layers, names, other batch sizes, gradients; onnxruntime is the oracle."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from formats.onnx.models import network, opened, runtime, weight, written
from torch import nn

from curvlab.errors import DataError

PERCEPTRON = """g (float[N,4] x) => (float[N,2] y) {
    a = MatMul(x, onnx__MatMul_12)
    b = Add(fc1__bias, a)
    c = Relu(b)
    y = Gemm<transB = 1>(c, fc2__weight, fc2__bias)
}"""
PERCEPTRON_WEIGHTS = {
    "onnx::MatMul_12": weight(4, 5),
    "fc1.bias": weight(5, seed=1),
    "fc2.weight": weight(2, 5, seed=2),
    "fc2.bias": weight(2, seed=3),
}


def perceptron(path: Path) -> Path:
    return written(path / "model.onnx", PERCEPTRON, PERCEPTRON_WEIGHTS, a="/fc1/MatMul", b="/fc1/Add")


def test_products_and_sums_become_linear_layers_under_the_names_of_the_original(tmp_path: Path) -> None:
    stored, found = opened(perceptron(tmp_path))
    module = found.module
    assert module is not None
    assert found.made_by == "ONNX graph"
    assert list(stored.specs) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert list(module.state_dict()) == list(stored.specs)
    assert isinstance(module.fc1, nn.Linear)
    assert isinstance(module.fc2, nn.Linear)
    torch.testing.assert_close(module.fc1.weight, weight(4, 5).T, rtol=0, atol=0)
    for name, spec in stored.specs.items():
        tensor = stored.tensors[name]
        assert (tuple(tensor.shape), str(tensor.dtype)) == (spec.shape, "torch.float32")
        torch.testing.assert_close(tensor, module.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize("examples", [1, 3, 7])
def test_a_free_batch_size_stays_free(tmp_path: Path, examples: int) -> None:
    path = perceptron(tmp_path)
    x = weight(examples, 4, seed=9)
    torch.testing.assert_close(network(path)(x), *runtime(path, x=x))


def test_inputs_go_by_position_or_name(tmp_path: Path) -> None:
    module = network(perceptron(tmp_path))
    x = weight(2, 4)
    torch.testing.assert_close(module(x), module(x=x), rtol=0, atol=0)
    for wrong in ((), (x, x)):
        with pytest.raises(DataError, match="takes the inputs 'x'"):
            module(*wrong)


def test_a_network_is_trained_like_any_other(tmp_path: Path) -> None:
    module = network(perceptron(tmp_path))
    x, target = weight(8, 4), weight(8, 2, seed=5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (module(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_network_can_be_copied(tmp_path: Path) -> None:
    module = network(perceptron(tmp_path))
    copied = copy.deepcopy(module)
    with torch.no_grad():
        copied.fc1.weight.zero_()
    x = weight(3, 4)
    torch.testing.assert_close(module(x), *runtime(tmp_path / "model.onnx", x=x))
    assert not torch.equal(copied(x), module(x))


def test_sizes_of_one_name_are_tried_alike(tmp_path: Path) -> None:
    """The batch is the first axis of one input and the second of the other."""
    graph = "g (float[N,4] x, float[2,N,4] s) => (float[2,N,4] y) { a = MatMul(x, m) y = Add(a, s) }"
    path = written(tmp_path / "model.onnx", graph, {"m": weight(4, 4)})
    x, s = weight(5, 4), weight(2, 5, 4, seed=1)
    torch.testing.assert_close(network(path)(x, s), *runtime(path, x=x, s=s))


def test_one_weight_used_by_two_nodes_is_one_layer(tmp_path: Path) -> None:
    graph = "g (float[N,4] x) => (float[N,4] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }"
    path = written(tmp_path / "model.onnx", graph, {"w": weight(4, 4)})
    module = network(path)
    assert [type(part).__name__ for part in module.children()] == ["Linear"]
    x = weight(3, 4, seed=1)
    torch.testing.assert_close(module(x), *runtime(path, x=x))


def test_one_weight_in_layers_that_differ_is_one_parameter(tmp_path: Path) -> None:
    graph = """g (float[N,2,9] x) => (float[N,3,9] y, float[N,3,5] z) {
        y = Conv<pads = [1,1]>(x, k) z = Conv<pads = [1,1], strides = [2]>(x, k) }"""
    path = written(tmp_path / "model.onnx", graph, {"k": weight(3, 2, 3)})
    stored, found = opened(path)
    assert found.module is not None
    assert len(list(found.module.parameters())) == 1
    assert len(stored.specs) == len(stored.aliases) == 1
    names = set(found.module.state_dict())
    assert names == {*stored.specs, *stored.aliases}
    x = weight(2, 2, 9, seed=1)
    for ours, theirs in zip(found.module(x), runtime(path, x=x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_network_can_change_its_type(tmp_path: Path) -> None:
    graph = """g (float[N,4] x) => (float[N,3] y) {
        n = Shape<start = 1>(x) m = Cast<to = 1>(n) s = ReduceSum(m) a = Mul(x, scale)
        b = Div(a, s) y = MatMul(b, w) }"""
    path = written(tmp_path / "model.onnx", graph, {"scale": weight(4), "w": weight(4, 3)})
    module = network(path)
    x = weight(2, 4, seed=3)
    double = network(path).double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), module(x))
    assert "scale" in dict(module.named_parameters())


def test_a_network_that_disagrees_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curvlab.formats.onnx.operators.table import Operator
    from curvlab.formats.onnx.running import building

    def wrong(node: object, operator: Operator, attributes: object) -> object:
        step = right(node, operator, attributes)  # type: ignore[arg-type]
        shifted = lambda net, x: {name: y + 0.01 for name, y in step.run(net, x).items()}  # noqa: E731
        return type(step)(step.node, shifted, step.inputs, step.frees)

    right = building.functional_step
    monkeypatch.setattr(building, "functional_step", wrong)
    _, found = opened(perceptron(tmp_path))
    assert found.module is None
    assert "differs from onnxruntime's by" in found.notes[0]


def test_without_onnxruntime_onnxs_own_reference_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = perceptron(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    _, found = opened(path)
    assert found.module is not None
    assert "agrees with onnx's reference" in found.notes[0]

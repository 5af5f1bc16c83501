"""Layers of ONNX as torch's modules, with any attributes; gradients of operators; what cannot be run."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from formats.onnx.models import network, opened, runtime, weight, written
from torch import nn

# Attributes of a layer, a graph's shapes: (operator and attributes, shape of x, weights) -> the module it must become.
LAYERS = {
    "same-upper": (
        'Conv<auto_pad = "SAME_UPPER", strides = [2,2]>(x, w, b)',
        (2, 2, 8, 7),
        {"w": (3, 2, 3, 2), "b": (3,)},
    ),
    "same-lower": ('Conv<auto_pad = "SAME_LOWER">(x, w)', (2, 2, 8, 7), {"w": (3, 2, 4, 4)}),
    "lopsided": ("Conv<pads = [1,0,2,1], dilations = [2,1]>(x, w)", (2, 2, 8, 7), {"w": (3, 2, 3, 2)}),
    "depthwise": ("Conv<group = 4, pads = [1,1,1,1]>(x, w, b)", (2, 4, 5, 5), {"w": (8, 1, 3, 3), "b": (8,)}),
    "one-axis": ("Conv<strides = [3]>(x, w, b)", (2, 4, 11), {"w": (6, 4, 3), "b": (6,)}),
    "three-axes": ("Conv(x, w)", (1, 2, 4, 4, 4), {"w": (2, 2, 2, 2, 2)}),
    "up": ("ConvTranspose<strides = [2,2], pads = [1,1,1,1]>(x, w, b)", (2, 3, 4, 4), {"w": (3, 2, 3, 3), "b": (2,)}),
    "up-padded": (
        "ConvTranspose<strides = [2,2], pads = [1,1,1,1], output_padding = [1,1]>(x, w, b)",
        (2, 3, 4, 4),
        {"w": (3, 2, 3, 3), "b": (2,)},
    ),
    "up-lopsided": ("ConvTranspose<strides = [2], pads = [0,1]>(x, w, b)", (2, 3, 4), {"w": (3, 2, 3), "b": (2,)}),
    "up-grouped": ("ConvTranspose<group = 2>(x, w)", (2, 4, 5), {"w": (4, 3, 2)}),
    "up-same": (
        'ConvTranspose<strides = [2,2], auto_pad = "SAME_UPPER">(x, w, b)',
        (2, 3, 4, 4),
        {"w": (3, 2, 3, 3), "b": (2,)},
    ),
    "batch-norm": (
        "BatchNormalization<epsilon = 0.01>(x, s, b, m, v)",
        (4, 3, 5, 5),
        {"s": (3,), "b": (3,), "m": (3,), "v": (3,)},
    ),
    "layer-norm": ("LayerNormalization<axis = -2>(x, s, b)", (4, 3, 5), {"s": (3, 5), "b": (3, 5)}),
    "prelu": ("PRelu(x, s)", (4, 3, 5, 5), {"s": (3, 1, 1)}),
    "linear": ("Gemm<transB = 1>(x, w, b)", (4, 3), {"w": (5, 3), "b": (5,)}),
    "positions": ("MatMul(x, w)", (4, 6, 3), {"w": (3, 5)}),
}


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_a_layer_with_any_attributes_is_torchs_module(
    tmp_path: Path, case: tuple[str, tuple[int, ...], dict[str, tuple[int, ...]]]
) -> None:
    node, shape, shapes = case
    weights = {name: weight(*size, seed=i).abs() + 0.1 for i, (name, size) in enumerate(shapes.items())}
    sizes = ",".join(map(str, shape))
    path = written(tmp_path / "model.onnx", f"g (float[{sizes}] x) => (float[] y) {{ y = {node} }}", weights)
    module = network(path)
    (layer,) = module.children()
    assert len(list(layer.parameters())) == len(shapes) - 2 * node.startswith("BatchNorm")
    x = weight(*shape, seed=7)
    torch.testing.assert_close(module(x), *runtime(path, x=x), rtol=1e-4, atol=1e-5)


RECURRENT = {
    "lstm": ("LSTM", 4, "forward", "", False),
    "lstm-both": ("LSTM", 4, "bidirectional", "", True),
    "lstm-back": ("LSTM", 4, "reverse", "", True),
    "gru": ("GRU", 3, "forward", "linear_before_reset = 1,", False),
    "gru-both": ("GRU", 3, "bidirectional", "linear_before_reset = 1,", True),
    "gru-back": ("GRU", 3, "reverse", "linear_before_reset = 1,", True),
    "rnn-relu": ("RNN", 1, "forward", 'activations = ["Relu"],', True),
    "rnn-both": ("RNN", 1, "bidirectional", "", False),
    "gru-early-reset": ("GRU", 3, "forward", "linear_before_reset = 0,", True),
}


@pytest.mark.parametrize("case", RECURRENT.values(), ids=RECURRENT)
def test_recurrent_layers_keep_their_gates(tmp_path: Path, case: tuple[str, int, str, str, bool]) -> None:
    kind, gates, direction, more, started = case
    count = 2 if direction == "bidirectional" else 1
    weights = {
        "lstm.W": weight(count, gates * 3, 2),
        "lstm.R": weight(count, gates * 3, 3, seed=1),
        "lstm.B": weight(count, gates * 6, seed=2),
    }
    states = ["h0", "c0"][: 2 if kind == "LSTM" else 1] if started else []
    inputs = "".join(f", float[{count},4,3] {s}" for s in states)
    given = ", ".join(["x, lstm__W, lstm__R, lstm__B", *([""] * bool(states)), *states])
    outputs = "y, h, c" if kind == "LSTM" else "y, h"
    declared = ", ".join(f"float[] {name}" for name in outputs.split(", "))
    graph = f"""g (float[5,4,2] x{inputs}) => ({declared}) {{
        {outputs} = {kind}<direction = "{direction}", {more} hidden_size = 3>({given}) }}"""
    path = written(tmp_path / "model.onnx", graph, weights)
    stored, found = opened(path)
    assert found.module is not None, found.notes
    layers = [type(part).__name__ for part in found.module.modules()]
    assert (kind in layers) == ("linear_before_reset = 0" not in more)
    x = {"x": weight(5, 4, 2, seed=4)} | {s: weight(count, 4, 3, seed=5 + i) for i, s in enumerate(states)}
    for ours, theirs in zip(found.module(**x), runtime(path, **x), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert kind not in layers or {name.rpartition(".")[2] for name in stored.specs} == {
        f"{role}_{side}_l0{suffix}"
        for role in ("weight", "bias")
        for side in ("ih", "hh")
        for suffix in ("", "_reverse")[:count]
    }


def test_an_embedding_takes_tokens_of_any_whole_type(tmp_path: Path) -> None:
    graph = "g (int32[N,5] tokens) => (float[N,5,3] y) { y = Gather(table, tokens) }"
    path = written(tmp_path / "model.onnx", graph, {"table": weight(12, 3)})
    module = network(path)
    (layer,) = module.children()
    assert isinstance(layer, nn.Embedding)
    tokens = torch.tensor([[0, 11, -1, 3, 2]], dtype=torch.int32)
    (theirs,) = runtime(path, tokens=tokens)
    for given in (tokens, tokens.long(), tokens.float()):
        torch.testing.assert_close(module(given), theirs)


GRADIENTS = {
    "softmax": "y = Softmax(x)",
    "normalised": "m = ReduceMean<axes = [-1]>(x) c = Sub(x, m) q = Mul(c, c) v = ReduceMean<axes = [-1]>(q) "
    "d = Sqrt(v) y = Div(c, d)",
    "gathered": "y = Gather<axis = 1>(x, i)",
    "scattered": "y = ScatterElements<axis = 1>(x, j, z)",
    "resized": 'y = Resize<mode = "cubic">(x4, , scales)',
    "pooled": "y = AveragePool<kernel_shape = [2,2], pads = [1,0,0,1]>(x4)",
    "largest": "y = MaxPool<kernel_shape = [2,2]>(x4)",
    "einsum": 'y = Einsum<equation = "ij,kj->ik">(x, x)',
    "gelu": "a = Div(x, r) b = Erf(a) y = Mul(x, b)",
    "recurrent": "o, h = GRU<hidden_size = 3>(x3, W, R, B) y = Transpose<perm = [2,0,1,3]>(o)",
    "layer-norm": "y = LayerNormalization(x, s)",
    "padded": 'y = Pad<mode = "reflect">(x, p)',
}


@pytest.mark.parametrize("nodes", GRADIENTS.values(), ids=GRADIENTS)
def test_operators_have_the_right_gradients(tmp_path: Path, nodes: str, float64: None) -> None:
    constants = {
        "i": torch.tensor([3, 0]),
        "j": torch.tensor([[1], [0], [3]]),
        "z": weight(3, 1),
        "scales": torch.tensor([1.0, 1.0, 1.5, 2.0], dtype=torch.float32),
        "r": torch.tensor(1.4142135, dtype=torch.float32),
        "W": weight(1, 9, 2),
        "R": weight(1, 9, 3),
        "B": weight(1, 18),
        "s": weight(4),
        "p": torch.tensor([0, 1, 0, 2]),
    }
    shapes = {"x4": (1, 2, 4, 4), "x3": (3, 2, 2), "x": (3, 4)}
    name = next(name for name in shapes if f"{name}," in nodes or f"{name})" in nodes)
    sizes = ",".join(map(str, shapes[name]))
    used = {key: value for key, value in constants.items() if any(f"{key}{end}" in nodes for end in ",)")}
    path = written(tmp_path / "model.onnx", f"g (float[{sizes}] {name}) => (float[] y) {{ {nodes} }}", used)
    module = network(path).double()
    x = weight(*shapes[name], seed=2).double().requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))


UNSUPPORTED = {
    "control flow": (
        "g (bool c, float[2] x) => (float[2] y) { y = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) }, "
        "else_branch = e () => (float[2] b) { b = Identity(x) }> }",
        "operator If is not supported: branches and loops of the graph are not run",
    ),
    "quantised": (
        "g (uint8[2] x, float s, uint8 z) => (float[2] y) { y = DequantizeLinear(x, s, z) }",
        "operator DequantizeLinear is not supported: the graph is quantised",
    ),
    "random": (
        "g (float[2] x) => (float[2] y) { y = RandomNormalLike(x) }",
        "operator RandomNormalLike is not supported: its output is random",
    ),
    "two of them": (
        "g (float[2] x) => (float[2] y) { a = RandomNormalLike(x) y = Bernoulli(a) }",
        "operator RandomNormalLike is not supported (and 1 more)",
    ),
}


@pytest.mark.parametrize(("graph", "why"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_cannot_be_run_says_why(tmp_path: Path, graph: str, why: str) -> None:
    _, found = opened(written(tmp_path / "model.onnx", graph, opset=17))
    assert found.module is None
    assert found.notes[0].startswith(f"opened for its weights only: {why}")


def test_operators_of_other_domains_are_named(tmp_path: Path) -> None:
    node = onnx.helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")
    info = [onnx.helper.make_tensor_value_info(name, 1, [2, 2]) for name in "xy"]
    table = onnx.numpy_helper.from_array(weight(2, 2).numpy(), "w")
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    graph = onnx.helper.make_graph([node], "g", info[:1], info[1:], [table])
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports), str(path))
    stored, found = opened(path)
    assert list(stored.specs) == ["FusedMatMul_0.w"]
    assert "operator FusedMatMul of the domain com.microsoft" in found.notes[0]

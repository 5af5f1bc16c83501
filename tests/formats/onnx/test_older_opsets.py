"""Operators as older opsets have them, where attributes stood for inputs: onnxruntime, or onnx's reference, agrees."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from formats.onnx.models import opened, weight, written

from curvlab.formats.onnx.operators.table import find_operator, operators

# Opset, the shape of x, the nodes. Constants that nodes use are in CONSTANTS.
CASES = {
    "reduce-attribute": (11, (2, 3, 4), "y = ReduceMean<axes = [1], keepdims = 0>(x)"),
    "reduce-sum-attribute": (11, (2, 3, 4), "y = ReduceSum<axes = [0, -1]>(x)"),
    "reduce-all": (11, (2, 3, 4), "y = ReduceMax<keepdims = 0>(x)"),
    "reduce-log": (12, (2, 3), "a = Abs(x) y = ReduceLogSum<axes = [1]>(a)"),
    "reduce-norm": (9, (2, 3), "y = ReduceL2<axes = [1]>(x)"),
    "squeeze": (11, (2, 1, 3), "y = Squeeze<axes = [1]>(x)"),
    "unsqueeze": (11, (2, 3), "y = Unsqueeze<axes = [0, -1]>(x)"),
    "split": (11, (2, 6), "y, b = Split<axis = 1, split = [2, 4]>(x)"),
    "split-equal": (11, (2, 6), "y, b, c = Split<axis = 1>(x)"),
    "slice": (9, (4, 6), "y = Slice<starts = [1, -4], ends = [3, 100], axes = [0, 1]>(x)"),
    "slice-all-axes": (9, (4, 6), "y = Slice<starts = [1, 2], ends = [3, 4]>(x)"),
    "pad": (10, (2, 3), 'y = Pad<pads = [0, 1, 2, 0], mode = "edge">(x)'),
    "pad-value": (10, (2, 3), "y = Pad<pads = [0, 1, 2, -1], value = 2.5>(x)"),
    "clip": (6, (3, 4), "y = Clip<min = -0.5, max = 0.25>(x)"),
    "clip-above": (10, (3, 4), "y = Clip<max = 0.25>(x)"),
    "softmax": (11, (2, 3, 4), "y = Softmax(x)"),
    "softmax-axis": (9, (2, 3, 4), "y = Softmax<axis = 2>(x)"),
    "log-softmax": (11, (2, 3, 4), "y = LogSoftmax<axis = 1>(x)"),
    "hardmax": (11, (2, 3, 4), "y = Hardmax<axis = 1>(x)"),
    "top-k": (9, (3, 5), "y, i = TopK<k = 2, axis = 1>(x)"),
    "upsample": (9, (1, 2, 3, 4), "y = Upsample(x, scales)"),
    "upsample-linear": (9, (1, 2, 3, 4), 'y = Upsample<mode = "linear">(x, scales)'),
    "upsample-attribute": (8, (1, 2, 3, 4), "y = Upsample<scales = [1.0, 1.0, 2.0, 3.0]>(x)"),
    "resize-10": (10, (1, 2, 3, 4), "y = Resize(x, scales)"),
    "resize-11": (11, (1, 2, 3, 4), 'y = Resize<mode = "linear">(x, roi, scales)'),
    "resize-11-sizes": (
        11,
        (1, 2, 3, 4),
        'y = Resize<mode = "cubic", coordinate_transformation_mode = "align_corners">(x, roi, roi, sizes)',
    ),
    "resize-pytorch": (
        13,
        (1, 2, 3, 4),
        'y = Resize<mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel">(x, , scales)',
    ),
    "dropout": (7, (3, 4), "y = Dropout<ratio = 0.7>(x)"),
    "dropout-10": (10, (3, 4), "y = Dropout(x)"),
    "batch-norm": (7, (2, 3, 4), "y = BatchNormalization<momentum = 0.8>(x, three, three, three, three)"),
    "batch-norm-9": (9, (2, 3, 4), "y = BatchNormalization(x, three, three, three, three)"),
    "group-norm": (18, (2, 6, 4), "y = GroupNormalization<num_groups = 3>(x, three, three)"),
    "gemm-7": (7, (3, 4), "y = Gemm<alpha = 0.5, beta = 2.0>(x, matrix, row)"),
    "matmul-1": (8, (3, 4), "y = MatMul(x, matrix)"),
    "flatten": (9, (2, 3, 4), "y = Flatten<axis = 2>(x)"),
    "scatter": (10, (3, 3), "y = Scatter<axis = 0>(x, index, update)"),
    "prelu": (9, (2, 3, 4), "y = PRelu(x, column)"),
    "average-pool": (
        7,
        (1, 2, 5, 5),
        "y = AveragePool<kernel_shape = [2,2], pads = [1,1,0,0], count_include_pad = 1>(x)",
    ),
    "average-pool-ceil": (11, (1, 2, 6, 6), "y = AveragePool<kernel_shape = [3,3], strides = [2,2], ceil_mode = 1>(x)"),
    "max-pool": (8, (1, 2, 5, 5), 'y, i = MaxPool<kernel_shape = [3,3], auto_pad = "SAME_LOWER", strides = [2,2]>(x)'),
    "global-lp-pool": (12, (2, 3, 4, 5), "y = GlobalLpPool<p = 3>(x)"),
    "lp-pool": (11, (1, 2, 5, 5), "y = LpPool<kernel_shape = [2,2]>(x)"),
    "mean-of-three": (8, (2, 3), "a = Exp(x) y = Mean(x, a, x)"),
    "sum-and-max": (8, (2, 3), "a = Exp(x) b = Sum(x, a) y = Max(x, b, a)"),
    "arg-max": (11, (3, 4), "y = ArgMax<axis = 1, keepdims = 0>(x)"),
    "one-hot": (9, (3,), "a = Cast<to = 7>(x) y = OneHot(a, depth, onoff)"),
    "depth-to-space": (10, (1, 8, 2, 3), "y = DepthToSpace<blocksize = 2>(x)"),
    "range-mod": (11, (5,), "a = Mod<fmod = 1>(x, five) y = Round(a)"),
    "cast-name": (7, (2, 3), "a = Cast<to = 6>(x) y = Cast<to = 1>(a)"),
    "sub-last": (6, (2, 3, 4), "y = Sub<broadcast = 1>(x, row4)"),
    "reshape-attribute": (4, (2, 3), "y = Reshape<shape = [3, -1]>(x)"),
    "layer-norm-by-hand": (
        12,
        (2, 3, 4),
        "m = ReduceMean<axes = [-1]>(x) c = Sub(x, m) q = Pow(c, two) v = ReduceMean<axes = [-1]>(q) e = Add(v, tiny) "
        "s = Sqrt(e) d = Div(c, s) f = Mul(d, row4) y = Add(f, row4)",
    ),
}
CONSTANTS = {
    "scales": torch.tensor([1.0, 1.0, 2.0, 2.0]),
    "sizes": torch.tensor([1, 2, 5, 7]),
    "roi": torch.zeros(0),
    "three": weight(3).abs() + 0.1,
    "matrix": weight(4, 5, seed=1),
    "row": weight(5, seed=2),
    "row4": weight(4, seed=3),
    "column": weight(3, 1, seed=4),
    "index": torch.tensor([[2, 0, 1], [0, 1, 2]]),
    "update": weight(2, 3, seed=5),
    "depth": torch.tensor(4),
    "onoff": torch.tensor([0.25, 3.0]),
    "five": torch.tensor([1.5]),
    "two": torch.tensor(2.0),
    "tiny": torch.tensor(1e-5),
}


@pytest.mark.parametrize(("opset", "shape", "nodes"), CASES.values(), ids=CASES)
def test_an_older_form_agrees_with_the_reference(
    tmp_path: Path, opset: int, shape: tuple[int, ...], nodes: str
) -> None:
    used = {name: value for name, value in CONSTANTS.items() if any(f"{name}{end}" in nodes for end in ",)")}
    kind = "int64" if "ArgMax" in nodes else "float"
    graph = f"g (float[{','.join(map(str, shape))}] x) => ({kind}[] y) {{ {nodes} }}"
    _, network = opened(written(tmp_path / "model.onnx", graph, used, opset=opset))
    assert network.module is not None, network.notes
    assert "agrees with" in network.notes[0]


def test_before_opset_7_an_attribute_aligns_the_axes() -> None:
    """Neither reference runs these, so torch's own broadcasting is the oracle."""
    x, three, pair = weight(2, 3, 4), weight(3, seed=1), weight(2, 3, seed=2)
    for name, function in (("Add", torch.add), ("Mul", torch.mul), ("Sub", torch.sub), ("Greater", torch.gt)):
        old = find_operator(name, "", 6)
        assert torch.equal(old([x, three], {"broadcast": 1, "axis": 1}, 1), function(x, three[:, None]))
        assert torch.equal(old([x, pair], {"broadcast": 1, "axis": 0}, 1), function(x, pair[:, :, None]))
        assert torch.equal(old([x, x], {}, 1), function(x, x))


def test_the_forms_of_an_operator_follow_each_other_without_a_gap() -> None:
    for name, forms in operators().items():
        ranges = sorted((form.since, form.before or 10_000) for form in forms)
        for (_, before), (since, _) in pairwise(ranges):
            assert before == since, name

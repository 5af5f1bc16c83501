"""`curvlab analyze --json` on every recorded network: files are made, then the command line is run on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

import curvlab

from .networks import BUILDERS, build, drawn, filled

N = 60
"""Examples: enough that factors have full rank where they can."""


@dataclass(frozen=True)
class Profile:
    """One network with its data, and the options of each of its recordings."""

    name: str
    x: tuple[int, ...]
    y: tuple[int, ...] | int = 3
    vocabulary: int | None = None
    runs: dict[str, list[str]] = field(default_factory=lambda: {"mc": [], "type-2": ["--fisher-type", "type-2"]})


BATCH = ["--statistic", "batch", "--batch-size", "20", "--fisher-type", "empirical"]
REDUCE = ["--kfac-approx", "reduce", "--mc-samples", "3", "--batch-size", "17", "--seed", "5"]
MSE, BCE = ["--loss", "mse"], ["--loss", "bce"]

PROFILES = [
    Profile("linear", (6,), runs={"mc": [], "type-2": ["--fisher-type", "type-2"], "batch": BATCH}),
    Profile("convolutional", (2, 6, 6), runs={"mc": [], "reduce": REDUCE, "batch": BATCH}),
    Profile("grouped", (4, 5, 5)),
    Profile("recurrent", (5, 3), 4, runs={"mc": [], "reduce": REDUCE}),
    Profile("attention", (5, 3), runs={"mc": [], "reduce": REDUCE}),
    Profile("tied", (4,), 6, vocabulary=6),
    Profile("norms", (3, 5)),
    Profile("by-hand", (4, 3), 4),
    Profile("regression", (2, 6), (3, 4), runs={"mc": MSE, "empirical": [*MSE, "--fisher-type", "empirical"]}),
    Profile("labels", (2, 3, 3, 4), (4,), runs={"mc": BCE, "type-2": [*BCE, "--fisher-type", "type-2"]}),
]


def profiles(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Names with arguments of `curvlab`; what they name lies in `folder`."""
    for one in PROFILES:
        model, data = _architecture(folder, one.name), folder / f"{one.name}.npz"
        np.savez(data, **_arrays(one))
        for run, options in one.runs.items():
            yield f"{one.name}-{run}", [*model, "--data", str(data), *options]
    yield from _masked(folder)
    yield from _onnx(folder)
    yield from _keras(folder)
    yield from _files(folder)


def _architecture(folder: Path, name: str) -> list[str]:
    file = folder / f"{name}.pt"
    torch.save(build(name).state_dict(), file)
    return [str(file), "--architecture", f"tests.golden.networks:{BUILDERS[name].__name__}"]


def _whole(high: int, *shape: int, seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape)


def _arrays(one: Profile) -> dict[str, np.ndarray]:
    x = _whole(one.vocabulary, N, *one.x, seed=3) if one.vocabulary else drawn(N, *one.x, seed=3).numpy()
    if isinstance(one.y, int):
        return {"x": x, "y": _whole(one.y, N)}
    if one.name == "labels":
        return {"x": x, "y": (drawn(N, *one.y, seed=4) > 0).double().numpy()}
    return {"x": x, "y": drawn(N, *one.y, seed=4).numpy()}


def _masked(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Padded text: labels of positions, some of which are missing."""
    lengths = 1 + _whole(6, N, 1)
    mask = (np.arange(6) < lengths).astype(np.int64)
    labels = np.where((mask == 1) & (_whole(4, N, 6, seed=8) > 0), _whole(4, N, 6, seed=6), -100)
    labels[:, 0] = _whole(4, N, seed=9)
    data = folder / "masked.npz"
    np.savez(data, input_ids=(1 + _whole(10, N, 6, seed=5)) * mask, attention_mask=mask, labels=labels)
    model = [*_architecture(folder, "masked"), "--data", str(data)]
    yield "masked-mc", model
    yield "masked-empirical-reduce", [*model, "--fisher-type", "empirical", "--kfac-approx", "reduce"]
    yield "masked-type-2", [*model, "--fisher-type", "type-2"]


def _onnx(folder: Path) -> Iterator[tuple[str, list[str]]]:
    import onnx

    shapes = {"conv.weight": (3, 2, 3, 3), "conv.bias": (3,), "fc.weight": (3, 48), "fc.bias": (3,)}
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "conv.weight", "conv.bias"], ["h"], kernel_shape=[3, 3]),
        node("Tanh", ["h"], ["a"]),
        node("Flatten", ["a"], ["f"]),
        node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    tensors = [
        onnx.numpy_helper.from_array(drawn(*shape, seed=i).float().numpy() * 0.4, name)
        for i, (name, shape) in enumerate(shapes.items())
    ]
    value, real = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    ends = [value("x", real, ["N", 2, 6, 6])], [value("y", real, ["N", 3])]
    graph = onnx.helper.make_graph(nodes, "recorded", *ends, tensors)
    opset = [onnx.helper.make_opsetid("", 17)]
    file, data = folder / "recorded.onnx", folder / "onnx.npz"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(file))
    np.savez(data, x=drawn(N, 2, 6, 6, seed=3).numpy(), y=_whole(3, N))
    for run, options in {"mc": [], "reduce": REDUCE}.items():
        yield f"onnx-{run}", [str(file), "--data", str(data), "--loss", "cross-entropy", *options]


def _keras(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Convolutions in float64; a recurrent network, whose products Keras computes in float32 whatever it is told."""
    import keras
    from keras import layers

    keras.config.set_floatx("float64")  # when the file is read too: a layer casts its inputs to it
    x = keras.Input((6, 6, 2))
    h = layers.Conv2D(4, 3, padding="same", activation="tanh", name="conv")(x)
    h = layers.SeparableConv2D(4, 3, name="separable")(h)
    pictures = keras.Model(x, layers.Flatten()(layers.Conv2D(3, 4, name="out")(h)))
    x = keras.Input((5, 3))
    words = keras.Model(x, layers.Dense(3, name="out")(layers.GRU(4, name="memory")(x)))
    for name, model in {"keras": pictures, "keras-float32": words}.items():
        for i, variable in enumerate(model.variables):
            if variable.value.is_floating_point():
                variable.assign(drawn(*variable.shape, seed=i) * 0.5)
        file, data = folder / f"{name}.keras", folder / f"{name}.npz"
        model.save(file)
        np.savez(data, x=drawn(N, *model.input_shape[1:], seed=3).numpy(), y=_whole(3, N))
        for run, options in {"mc": [], "reduce": REDUCE}.items():
            yield f"{name}-{run}", [str(file), "--data", str(data), "--loss", "cross-entropy", *options]


def _files(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Weights alone, the digits' network that comes with curvlab, and a network that FOP has trained."""
    weights = folder / "weights.pt"
    torch.save(
        {"state_dict": {**build("norms").state_dict(), "low.weight": drawn(8, 2, seed=1) @ drawn(2, 9, seed=2)}},
        weights,
    )
    yield "weights-alone", [str(weights)]
    yield "digits-cnn", ["examples/digits-cnn.safetensors", "--samples", "300"]
    model = filled(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)).double())
    x, y = drawn(N, 1, 8, 8, seed=3), torch.from_numpy(_whole(10, N))
    optimizer = curvlab.optim.create("fop", model, lr=0.05)
    for _ in range(5):
        optimizer.step(lambda: nn.functional.cross_entropy(model(x), y))
    from curvlab.formats.curvlab_file.fop_matrices import fop_matrices

    fop = folder / "fop.safetensors"
    curvlab.save(fop, model, data="digits", fop=fop_matrices(optimizer.matrices, optimizer.forms))
    yield "fop", [str(fop), "--samples", "100"]

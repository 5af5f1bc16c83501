"""A small valid model in every format that curvlab reads: what a fuzzer damages, and what must load as it is."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import torch
from torch import nn

WEIGHTS = {
    "conv.weight": torch.arange(24.0).reshape(3, 2, 2, 2),
    "conv.bias": torch.ones(3),
    "fc.weight": torch.ones(4, 3, dtype=torch.bfloat16),
    "rnn.weight_ih_l0": torch.ones(8, 3),
    "rnn.weight_hh_l0": torch.ones(8, 2),
}


class Sample(NamedTuple):
    """How a model is written and opened.

    Attributes:
        write: makes the files in an empty folder and gives the path to open.
        trust: whether it is opened with `trust`.
    """

    write: Callable[[Path], Path]
    trust: bool = False


def _torch(value: Any, legacy: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(value, folder / "model.pt", _use_new_zipfile_serialization=not legacy)
        return folder / "model.pt"

    return write


def _closed() -> Any:
    """Settings of a foreign class beside the weights: the road of the inert reader."""
    return {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=0.1), "epoch": 3}


def _pickled(folder: Path) -> Path:
    (folder / "model.pkl").write_bytes(pickle.dumps(WEIGHTS))
    return folder / "model.pkl"


def _safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file(WEIGHTS, folder / "model.safetensors", {"format": "pt"})
    return folder / "model.safetensors"


def _gguf(folder: Path) -> Path:
    import gguf

    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_token_list(["a", "b"])
    packed = gguf.quants.quantize(np.ones((4, 32), np.float32), gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("fc.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("fc.bias", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


def _sharded(folder: Path) -> Path:
    from safetensors.torch import save_file

    names = list(WEIGHTS)
    places = {name: f"model-{place}.safetensors" for place in (0, 1) for name in names[place::2]}
    for shard in set(places.values()):
        save_file({name: WEIGHTS[name] for name in names if places[name] == shard}, folder / shard)
    total = sum(tensor.nbytes for tensor in WEIGHTS.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _own(folder: Path) -> Path:
    from curvlab.formats.curvlab_file.file import save

    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    save(folder / "model.safetensors", network, data="digits", likelihood="categorical")
    return folder / "model.safetensors"


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


def _scripted(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the format deprecated
        torch.jit.save(torch.jit.script(_network()), folder / "model.pt")
    return folder / "model.pt"


def _exported(folder: Path) -> Path:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(_network().eval(), (torch.ones(2, 2, 3, 3),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    return folder / "model.pt2"


def _onnx(folder: Path) -> Path:
    """Layers, and operators that count with shapes."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    arrays = {
        "conv": np.ones((3, 2, 3, 3), "f4"),
        "bias": np.zeros(3, "f4"),
        "scale": np.ones(3, "f4"),
        "fc": np.ones((27, 4), "f4"),
        "first": np.array(0),
        "rest": np.array([-1]),
        "fill": np.ones(1, "f4"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv", "bias"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c", "scale", "bias", "bias", "scale"], ["n"], epsilon=1e-3),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("Shape", ["p"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["batches"]),
        helper.make_node("Concat", ["batches", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "fc"], ["g"], alpha=0.5),
        helper.make_node("ConstantOfShape", ["four"], ["ones"], value=numpy_helper.from_array(arrays["fill"])),
        helper.make_node("Mul", ["g", "ones"], ["h"]),
        helper.make_node("Softmax", ["h"], ["y"], axis=-1),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items() if name != "fill"]
    tensors += [numpy_helper.from_array(np.array([value]), name) for name, value in (("axes", 0), ("four", 4))]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        tensors,
    )
    save_model(_versioned(graph), folder / "model.onnx")
    return folder / "model.onnx"


def _onnx_external(folder: Path) -> Path:
    """A recurrent network with its weights in a file beside it."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    arrays = {"W": np.ones((1, 8, 3), "f4"), "R": np.ones((1, 8, 2), "f4"), "fc": np.ones((2, 5), "f4")}
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R"], ["", "last"], hidden_size=2),
        helper.make_node("Squeeze", ["last", "axis"], ["s"]),
        helper.make_node("MatMul", ["s", "fc"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, "n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [
            *(numpy_helper.from_array(array, name) for name, array in arrays.items()),
            numpy_helper.from_array(np.array([0]), "axis"),
        ],
    )
    path = folder / "model.onnx"
    save_model(_versioned(graph), path, save_as_external_data=True, location="weights.bin", size_threshold=32)
    return path


def _versioned(graph: Any) -> Any:
    from onnx import helper

    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _keras(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import keras
        from absl import logging as absl_logging

        network = keras.Sequential(
            [
                keras.layers.Input((6, 6, 2)),
                keras.layers.SeparableConv2D(3, 3, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Reshape((16, 3)),
                keras.layers.LSTM(2),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras' own code for NumPy
            before = absl_logging.get_verbosity()
            absl_logging.set_verbosity(absl_logging.ERROR)  # that HDF5 is an old way of saving
            (network.save_weights if name.endswith("weights.h5") else network.save)(folder / name)
            absl_logging.set_verbosity(before)
        return folder / name

    return write


def _keras_2(folder: Path) -> Path:
    """As Keras 2 wrote weights: names in lists of bytes."""
    import h5py

    weights = {"kernel:0": np.ones((4, 3), "f4"), "bias:0": np.zeros(3, "f4")}
    with h5py.File(folder / "model.h5", "w") as file:
        top = file.create_group("model_weights")
        top.attrs["layer_names"] = np.array([b"dense", b"dense_1"], "S20")
        for layer in ("dense", "dense_1"):
            group = top.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{layer}/{name}".encode() for name in weights], "S30")
            for name, value in weights.items():
                group.create_dataset(f"{layer}/{name}", data=value, chunks=True, compression="gzip")
    return folder / "model.h5"


def _huggingface(folder: Path) -> Path:
    import transformers
    from safetensors.torch import save_file

    sizes = {"vocab_size": 9, "n_positions": 5, "n_embd": 4, "n_layer": 1, "n_head": 2}
    sizes |= {"bos_token_id": 0, "eos_token_id": 0}
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "tie_word_embeddings": True, **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    state = {name: tensor for name, tensor in network.state_dict().items() if name != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


SAMPLES: dict[str, Sample] = {
    "safetensors": Sample(_safetensors),
    "sharded": Sample(_sharded),
    "curvlab": Sample(_own),
    "torch-zip": Sample(_torch(WEIGHTS)),
    "torch-zip-closed": Sample(_torch(_closed())),
    "torch-legacy": Sample(_torch(WEIGHTS, legacy=True)),
    "torch-legacy-closed": Sample(_torch(_closed(), legacy=True)),
    "pickle": Sample(_pickled),
    "torchscript": Sample(_scripted),
    "torchscript-trusted": Sample(_scripted, trust=True),
    "pt2": Sample(_exported),
    "pt2-trusted": Sample(_exported, trust=True),
    "onnx": Sample(_onnx),
    "onnx-external": Sample(_onnx_external),
    "keras": Sample(_keras("model.keras")),
    "h5-model": Sample(_keras("model.h5")),
    "h5-weights": Sample(_keras("model.weights.h5")),
    "h5-keras-2": Sample(_keras_2),
    "huggingface": Sample(_huggingface),
    "gguf": Sample(_gguf),
}
"""Name -> sample. A name begins with that of its format; "trusted" ones are opened as with `--trust`."""

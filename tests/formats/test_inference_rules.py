"""Every rule of layer inference as a row: the tensors of a file, and the layers that they are."""

from __future__ import annotations

import pytest
from formats.inference_rows import ROWS, Row, Shape
from torch import nn

from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.inference.infer import infer_layers


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_rule(row: Row) -> None:
    specs = {name: TensorSpec(shape, row.dtypes.get(name, "float32")) for name, shape in row.tensors.items()}
    found = infer_layers(specs, {}).layers
    assert tuple((layer.name, layer.kind) for layer in found) == row.layers
    assert tuple(layer.name for layer in found if layer.transposed) == row.transposed
    assert row.evidence in " | ".join(layer.evidence for layer in found)
    assert all(0 < layer.confidence < 1 and layer.evidence for layer in found)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_the_main_weight_comes_first_whatever_the_order_of_the_file(row: Row) -> None:
    names = sorted(row.tensors)  # biases before weights
    specs = {name: TensorSpec(row.tensors[name], row.dtypes.get(name, "float32")) for name in names}
    found = infer_layers(specs, {})
    specs.update({name: fold.spec for name, fold in found.folds.items()})
    assert all(specs[next(iter(layer.tensors.values()))].shape == layer.shape for layer in found.layers)
    assert {(layer.name, layer.kind) for layer in found.layers} == set(row.layers)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_every_tensor_belongs_to_exactly_one_layer(row: Row) -> None:
    specs = {name: TensorSpec(shape, row.dtypes.get(name, "float32")) for name, shape in row.tensors.items()}
    found = infer_layers(specs, {})
    used = [name for layer in found.layers for name in layer.tensors.values()]
    parts = [name for fold in found.folds.values() for name in fold.sources]
    plain = [name for name in used if name not in found.folds]
    assert sorted(plain + parts) == sorted(specs)
    assert len(set(used)) == len(used)


MODULES = {
    "Linear": nn.Linear(3, 5),
    "Conv1d": nn.Conv1d(3, 5, 2),
    "Conv2d": nn.Conv2d(4, 6, (3, 1), groups=2),
    "Conv3d": nn.Conv3d(3, 5, 2),
    "ConvTranspose1d": nn.ConvTranspose1d(3, 5, 2),
    "ConvTranspose2d": nn.ConvTranspose2d(3, 5, 2),
    "ConvTranspose3d": nn.ConvTranspose3d(3, 5, 2),
    "BatchNorm": nn.BatchNorm2d(5),
    "LayerNorm/GroupNorm": nn.GroupNorm(2, 6),
    "LSTM": nn.LSTM(3, 5, 2, bidirectional=True, proj_size=2),
    "GRU": nn.GRU(3, 5, bias=False),
    "RNN": nn.RNN(3, 5),
    "LSTMCell": nn.LSTMCell(3, 5),
    "GRUCell": nn.GRUCell(3, 5),
    "RNNCell": nn.RNNCell(3, 5),
}


@pytest.mark.parametrize("kind", MODULES)
def test_torch_modules_are_recognised_as_themselves(kind: str) -> None:
    specs = {
        f"part.{name}": TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in MODULES[kind].state_dict().items()
    }
    (layer,) = infer_layers(specs, {}).layers
    assert (layer.name, layer.kind) == ("part", kind)
    assert set(layer.tensors.values()) == set(specs)


def test_a_whole_transformer_has_no_unexplained_tensor() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    specs = {name: TensorSpec(tuple(tensor.shape), "float32") for name, tensor in model.state_dict().items()}
    layers = infer_layers(specs, {}).layers
    kinds = [layer.kind for layer in layers[: len(layers) // 2]]
    assert kinds == ["MultiheadAttention", "Linear", "Linear", "Linear", "LayerNorm/GroupNorm", "LayerNorm/GroupNorm"]


def test_the_order_is_the_order_given() -> None:
    names = ["z.weight", "a.weight", "z.bias", "m.weight"]
    specs = {name: TensorSpec((4,) if name.endswith("bias") else (4, 3), "float32") for name in names}
    assert [layer.name for layer in infer_layers(specs, {}).layers] == ["z", "a", "m"]


def test_an_ambiguous_layer_is_less_sure_than_a_clear_one() -> None:
    def sure(**tensors: Shape) -> float:
        specs = {name.replace("__", "."): TensorSpec(shape, "float32") for name, shape in tensors.items()}
        return infer_layers(specs, {}).layers[0].confidence

    clear, named, shapes_only = (
        sure(fc__weight=(5, 3), fc__bias=(5,)),
        sure(embed__weight=(5, 3)),
        sure(x__weight=(5, 3)),
    )
    assert clear > named > shapes_only > sure(x__weight=(5,))
    assert sure(fc__weight=(3, 3), fc__bias=(3,)) < clear

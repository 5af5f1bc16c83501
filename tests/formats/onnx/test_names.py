"""Names for layers and weights: what people chose is kept, what exporters counted is replaced."""

from __future__ import annotations

import pytest

from curvlab.formats.onnx.reading.names import Names, common_prefix, layer_name, value_name

LAYERS = [
    ("encoder.0.weight", "/encoder/0/Conv", "Conv", "encoder.0"),
    ("onnx::MatMul_123", "/encoder/fc1/MatMul", "MatMul", "encoder.fc1"),
    ("conv1_w", "", "Conv", "conv1"),
    ("conv1_w_0", "", "Conv", "conv1"),
    ("17", "Conv_4", "Conv", "conv"),
    ("const_fold_opt__664", "model_1/a/conv1d_4;model_1/a/conv1d_4", "Conv", "model_1.a.conv1d_4"),
    ("net/Dense_0/einsum/Einsum", "", "MatMul", "net.Dense_0"),
    ("net/Conv_0/transpose_3:0", "", "Conv", "net.Conv_0"),
    ("decoder.rnn.weight_ih", "", "LSTM", "decoder.rnn"),
    ("decoder.rnn.weight_ih", "", "Gemm", "decoder.rnn.weight_ih"),
    ("If_0_then_branch__Inline_0__encoder.1.conv.weight", "", "Conv", "encoder.1.conv"),
    ("module.fc.weight", "", "Gemm", "fc"),
    ("_orig_mod.fc.weight", "", "Gemm", "fc"),
    ("output.weight", "", "Conv", "output"),
    ("type.forward.weight", "", "Gemm", "type_.forward_"),
]


@pytest.mark.parametrize(("weight", "node", "operator", "name"), LAYERS)
def test_the_name_of_a_layer(weight: str, node: str, operator: str, name: str) -> None:
    assert layer_name(weight, node, operator) == name


def test_the_name_of_another_constant() -> None:
    assert value_name("cls_token", "/Concat") == "cls_token"
    assert value_name("onnx::Add_7", "/block/norm/Add") == "block.norm.Add.Add_7"


def test_every_name_is_given_once_and_none_is_anothers_path() -> None:
    names = Names()
    assert names.fresh("fc", ["weight", "bias"]) == "fc"
    assert names.fresh("fc", ["weight"]) == "fc_1"
    assert names.fresh("fc") == "fc_2"
    assert names.fresh("fc.weight") == "fc.weight_1"
    assert names.fresh("fc.weight.more") == "fc_weight_more"
    assert names.fresh("fc.weight.more", ["weight"]) == "fc_weight_more_1"
    assert names.fresh("a.b", ["weight"]) == "a.b"
    assert names.fresh("a") == "a_1"


def test_what_paths_have_in_common() -> None:
    assert common_prefix(["a.b.c", "a.b.d"]) == "a.b."
    assert common_prefix(["a.b", "a.b.c"]) == "a."
    assert common_prefix(["a.b.c"]) == ""

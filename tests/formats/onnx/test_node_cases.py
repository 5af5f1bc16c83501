"""Every node test of the installed onnx: the table agrees with it, or says why it has no function."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
import pytest
import torch
from formats.onnx.node_cases import assert_matches, graph_of, node_cases, tensor

from curvlab.formats.onnx.operators.table import UnsupportedOperator, operators, refused_operators
from curvlab.formats.onnx.running.building import bare_network

# Reason -> how many cases of onnx 1.23.2 it keeps from being run. No other reason may ever appear.
UNSUPPORTED = {
    "elements of the type float4e2m1: torch has no such tensors": 2,
    "elements of the type int2: torch has no such tensors": 2,
    "elements of the type int4: torch has no such tensors": 2,
    "elements of the type uint2: torch has no such tensors": 2,
    "elements of the type uint4: torch has no such tensors": 2,
    "no tensor": 2,
    "operator Adagrad of the domain ai.onnx.preview.training: only ONNX's own operators are supported": 2,
    "operator Adam of the domain ai.onnx.preview.training: only ONNX's own operators are supported": 2,
    "operator ArrayFeatureExtractor of the domain ai.onnx.ml: only ONNX's own operators are supported": 1,
    "operator BatchNormalization in training mode: its statistics would change": 2,
    "operator Bernoulli: its output is random": 3,
    "operator Binarizer of the domain ai.onnx.ml: only ONNX's own operators are supported": 1,
    "operator Cast to float8_e8m0fnu: its rounding is not torch's": 2,
    "operator ConvInteger: the graph is quantised: its weights are whole numbers": 2,
    "operator DequantizeLinear: the graph is quantised: its weights are whole numbers": 14,
    "operator Dropout in training mode: its output is random": 4,
    "operator DynamicQuantizeLinear: the graph is quantised: its weights are whole numbers": 3,
    "operator FlexAttention of the domain ai.onnx.preview: only ONNX's own operators are supported": 11,
    "operator If: branches and loops of the graph are not run": 7,
    "operator ImageDecoder: it reads image files": 9,
    "operator LabelEncoder of the domain ai.onnx.ml: only ONNX's own operators are supported": 4,
    "operator LinearAttention: no exporter is known to write it yet": 14,
    "operator Loop: branches and loops of the graph are not run": 7,
    "operator MatMulInteger: the graph is quantised: its weights are whole numbers": 1,
    "operator Momentum of the domain ai.onnx.preview.training: only ONNX's own operators are supported": 3,
    "operator NonMaxSuppression: regions of a detector are not supported": 10,
    "operator OptionalGetElement: sequences and optional values are not tensors": 4,
    "operator OptionalHasElement: sequences and optional values are not tensors": 7,
    "operator QLinearConv: the graph is quantised: its weights are whole numbers": 1,
    "operator QLinearMatMul: the graph is quantised: its weights are whole numbers": 8,
    "operator QuantizeLinear: the graph is quantised: its weights are whole numbers": 16,
    "operator RandomUniformLike: its output is random": 3,
    "operator RegexFullMatch: text is not a tensor": 3,
    "operator Scan: branches and loops of the graph are not run": 18,
    "operator SequenceInsert: sequences and optional values are not tensors": 2,
    "operator SequenceLength: sequences and optional values are not tensors": 6,
    "operator SequenceMap: sequences and optional values are not tensors": 6,
    "operator SplitToSequence: sequences and optional values are not tensors": 3,
    "operator StringConcat: text is not a tensor": 5,
    "operator StringNormalizer: text is not a tensor": 6,
    "operator StringSplit: text is not a tensor": 6,
    "operator TfIdfVectorizer: text is not a tensor": 7,
    "operator TreeEnsemble of the domain ai.onnx.ml: only ONNX's own operators are supported": 2,
    "torch has no tensors of this type": 64,
}
GREEN = 1603


def check(case: Any) -> None:
    """The operator's outputs are the expected ones.

    Raises:
        UnsupportedOperator: the table has no function for it.
    """
    graph = graph_of(case.model)
    network = bare_network(graph, dict(graph.constants))
    for inputs, outputs in case.data_sets:
        given = {value.name: tensor(x) for value, x in zip(graph.inputs, inputs, strict=True)}
        with torch.no_grad():
            values = network.run(given, {})
        for value, wanted in zip(graph.outputs, outputs, strict=True):
            assert_matches(values[value.name], wanted)


@pytest.mark.parametrize("name", sorted(node_cases()))
def test_an_operator_does_what_onnx_expects_or_says_why_it_does_not(name: str) -> None:
    reason = None
    try:
        check(node_cases()[name])
    except UnsupportedOperator as raised:
        reason = str(raised)
    assert reason is None or reason in UNSUPPORTED


def test_what_is_unsupported_is_exactly_this_list() -> None:
    found: Counter[str] = Counter()
    for case in node_cases().values():
        try:
            check(case)
        except UnsupportedOperator as reason:
            found[str(reason)] += 1
    assert set(found) <= set(UNSUPPORTED)
    if onnx.__version__ == "1.23.2":
        assert found == UNSUPPORTED
        assert len(node_cases()) - found.total() == GREEN


def test_every_operator_of_the_standard_is_in_the_table_or_refused_by_name() -> None:
    """No operator of ONNX's own domain is merely forgotten."""
    standard = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert standard - operators().keys() - refused_operators().keys() == set()

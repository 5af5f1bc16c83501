"""Node tests of layers again, with their weights stored in the file: the nodes become torch modules and still agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx
import pytest
import torch
from formats.onnx.node_cases import assert_matches, graph_of, node_cases, operators_of, tensor
from torch import Tensor, nn

from curvlab.formats.onnx.layers.plan import plan
from curvlab.formats.onnx.running.budget import Budget
from curvlab.formats.onnx.running.building import bare_network, network_of
from curvlab.formats.onnx.running.folding import fold
from curvlab.formats.onnx.running.network import OnnxNetwork
from curvlab.formats.onnx.running.verification import trial

# Operator -> the inputs that are data; all others are weights.
DATA = {
    "Conv": {0},
    "ConvTranspose": {0},
    "Gemm": {0},
    "MatMul": {0},
    "Gather": {1},
    "BatchNormalization": {0},
    "InstanceNormalization": {0},
    "GroupNormalization": {0},
    "LayerNormalization": {0},
    "RMSNormalization": {0},
    "PRelu": {0},
    "LSTM": {0, 4, 5, 6},
    "GRU": {0, 4, 5},
    "RNN": {0, 4, 5},
}
# Why a case stays a bare node although its weights are stored.
NO_MODULE = {
    "convtranspose_kernel_shape": "its output ends in zeros without the bias",
    "convtranspose_output_shape": "its output ends in zeros without the bias",
    "gather_0": "a table of more than two axes",
    "gather_1": "a table of more than two axes",
    "gather_2d_indices": "columns, not rows",
    "gather_negative_indices": "a list of numbers is no table",
    "gemm_all_attributes": "scaled",
    "gemm_alpha": "scaled",
    "gemm_beta": "scaled",
    "gemm_transposeA": "the data are transposed",
    "gemm_default_single_elem_vector_bias": "one number for all outputs",
    "gemm_default_scalar_bias": "one number for all outputs",
    "gemm_default_matrix_bias": "a bias of its own for every example",
    "gru_batchwise": "the reset gate comes before the product",
    "gru_bidirectional": "the reset gate comes before the product",
    "gru_defaults": "the reset gate comes before the product",
    "gru_reverse": "the reset gate comes before the product",
    "gru_seq_length": "the reset gate comes before the product",
    "gru_with_initial_bias": "the reset gate comes before the product",
    "lstm_with_peepholes": "gates see the cell",
    "matmul_1d_1d": "no matrix",
    "matmul_1d_3d": "no matrix",
    "matmul_3d": "a matrix of its own for every example",
    "matmul_4d": "a matrix of its own for every example",
    "matmul_4d_1d": "no matrix",
    "matmul_bcast": "a matrix of its own for every example",
    "prelu_broadcast": "slopes along the last axis",
    "prelu_example": "a slope of its own for every pixel",
}
LAYERS = sorted(
    name
    for name, case in node_cases().items()
    if not name.endswith(("expanded", "training_mode"))
    and len(case.model.graph.node) == 1
    and set(operators_of(case)) <= DATA.keys()
)


def with_stored_weights(case: Any) -> tuple[Any, Mapping[str, Tensor]]:
    """The model with initializers in place of all inputs but the data; and the data."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    (node,) = model.graph.node
    if node.op_type == "LayerNormalization":  # the statistics, which no module gives
        del node.output[1:], model.graph.output[1:]
    data = {node.input[i] for i in DATA[node.op_type] if i < len(node.input)}
    inputs, _ = case.data_sets[0]
    values = dict(zip([v.name for v in case.model.graph.input], inputs, strict=True))
    for name, value in values.items():
        if name not in data:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model, {name: tensor(value) for name, value in values.items() if name in data}


def built(model: Any, data: Mapping[str, Tensor]) -> OnnxNetwork:
    budget = Budget(2**30)
    graph, constants = fold(graph_of(model), budget)
    bare = bare_network(graph, constants)
    tried = trial(bare, budget, data)
    return network_of(graph, constants, plan(graph, constants), tried.shapes, lambda name, other: other())


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_a_module_and_does_what_its_node_does(name: str) -> None:
    case = node_cases()[name]
    model, data = with_stored_weights(case)
    known = name.removeprefix("test_") in NO_MODULE
    network = built(model, data)
    with torch.no_grad():
        values = network.run(data, {})
    for value, wanted in zip(network.outputs, case.data_sets[0][1], strict=False):
        assert_matches(values[value.name], wanted)
    modules = [module for module in network.modules() if type(module).__module__.startswith("torch.nn.modules")]
    assert (Counter(type(m) for m in modules if type(m) is not nn.Module).total() == 0) == known
    assert known or all(p.requires_grad for p in network.parameters())


def test_the_exceptions_are_cases_that_exist() -> None:
    assert {f"test_{name}" for name in NO_MODULE} <= set(LAYERS)

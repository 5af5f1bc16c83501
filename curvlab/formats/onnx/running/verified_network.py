"""The network of an ONNX file: built from its graph, trusted only after one random input agrees with a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.errors import CheckpointError, CurvlabError
from curvlab.formats.format import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from curvlab.formats.raw_checkpoint import RawCheckpoint


def onnx_network(path: Path, stored: RawCheckpoint, max_memory: int | None = None) -> Network:
    """The runnable network, or the reason why the file is opened for its weights only.

    Its layers are torch's modules, filled with the tensors of `stored` by name. It is run on one random input and must
    agree with onnxruntime, or where that is not installed with onnx's own reference: |y − r| ≤ 1e-4 max|r| for every
    output (1e-2 for 16-bit graphs), whole numbers exactly. A larger batch must be answered as its parts are, where all
    inputs and outputs have the examples on their first axis.

    Raises:
        CheckpointError: the file is malformed, or its constants alone ask for far more memory than it warrants.
        MemoryBudgetError: the file is larger than `max_memory`.
    """
    from curvlab.formats.onnx.running.batches import unchecked_batches
    from curvlab.formats.onnx.running.budget import Budget, TooMuch
    from curvlab.formats.onnx.running.building import bare_network, network_of
    from curvlab.formats.onnx.running.loaded_model import loaded_model, memory_for
    from curvlab.formats.onnx.running.verification import agreement, check_constants, reference, trial, unsupported

    def weights_only(why: str) -> Network:
        return Network(notes=(f"opened for its weights only: {why}",))

    found = loaded_model(path, max_memory)
    try:
        unsupported(found.model, found.graph)
        check_constants(found.model)
        bare = bare_network(found.graph, found.constants)
        budget = Budget(memory_for(path, max_memory))
        tried = trial(bare, budget)
        del bare

        def read(name: str, other: Callable[[], Tensor]) -> Tensor:
            return stored.tensors[name] if name in stored.tensors else other()

        network = network_of(found.graph, found.constants, found.plan, tried.shapes, read)
        expected = reference(path, tried.inputs, budget.spent)
        difference = agreement(network, expected, tried.inputs)
        unchecked = unchecked_batches(network, tried, Budget(memory_for(path, max_memory)))
    except TooMuch as refusal:
        return weights_only(f"{refusal}; --max-memory raises the limit")
    except CheckpointError:
        raise
    except CurvlabError as reason:
        return weights_only(str(reason))
    note = f"the imported network agrees with {expected.name} to {difference:.0e} of the largest output"
    return Network(network, "ONNX graph", (note, unchecked) if unchecked else (note,))

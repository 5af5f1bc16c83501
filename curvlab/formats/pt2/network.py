"""The network of a torch.export archive: its graph, in which the operators that were layers are layers again.

Loading runs code (torch evaluates expressions of the archive), so only `--trust` comes here; pickles, custom objects,
compiled code are refused all the same. The rebuilt network is used only after it has answered random inputs as the
exported program does, and larger batches as the program answers their parts.
"""

from __future__ import annotations

import io
import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from curvlab.errors import CheckpointError, MemoryBudgetError
from curvlab.formats.format import Network
from curvlab.formats.graph_answers import agree, fixed_batch, random_inputs
from curvlab.formats.pt2.file import COMPILED, SAMPLE_INPUTS, entries_inside
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.rebuilt_layers import INPUT, OPERATORS, rebuilt
from curvlab.formats.torch.pickle_trace import MAX_BYTES, NotAPickle, read_pickle
from curvlab.formats.torch.pickle_vetting import foreign_names, torch_says
from curvlab.formats.zip_archive import inner_names, open_archive, read_entry
from curvlab.formats.zip_bytes import ZipBytes
from curvlab.quoting import listed, quoted, reason


def exported_network(path: Path, stored: RawCheckpoint, max_memory: int | None) -> Network:
    """The network in a .pt2 archive, in eval mode, or the reason why there is none. Runs code of the file.

    Args:
        path: the archive.
        stored: its weights, as they were read without running anything.
        max_memory: bytes that the weights may take.

    Raises:
        CheckpointError: a pickle among its sample inputs that would run more code than the program itself.
        MemoryBudgetError: the weights take more than `max_memory`.
    """
    held = sum(spec.stored_bytes for spec in stored.specs.values())
    if max_memory is not None and held > max_memory:
        raise MemoryBudgetError(
            f"the network in {quoted(path)} needs {held} bytes", f"--max-memory allows {max_memory}"
        )
    archive = ZipBytes(path)
    inside = entries_inside(path, archive)
    if any(name.startswith(COMPILED) for name in inside):
        return _none("torch would load the compiled code (AOTInductor) beside the program, which curvlab never runs")
    _check_sample_inputs(path, archive)
    try:
        with _quiet():
            program = torch.export.load(path)
            original = program.module(check_guards=False)
        for name, tensor in original.state_dict().items():
            if tensor.device.type != "cpu":
                return _none(f"its {quoted(name)} lives on {tensor.device}: export it on the CPU")
        module = rebuilt_graph(original)
        inputs = random_inputs(program.example_inputs)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            if not agree(module, original, inputs):
                return _none("rebuilt with layers, it does not answer as the exported program does")
            fixed = fixed_batch(module, original, inputs)
    except (CheckpointError, MemoryBudgetError):
        raise
    except Exception as error:  # torch's own reader, and programs that do not run here
        return _none(torch_says(error))
    if fixed is not None:
        return _none(fixed)
    kinds = sorted(
        {type(part).__name__ for part in module.modules() if type(part).__module__.startswith("torch.nn.mod")}
    )
    note = f"layers recognised in the exported graph: {', '.join(kind for kind in kinds if kind != 'Module') or 'none'}"
    return Network(module, "torch.export graph", (note,))


def rebuilt_graph(original: fx.GraphModule) -> fx.GraphModule:
    """The same graph with modules where it calls an operator with parameters of its own."""
    root = nn.Module()
    for name, part in original._modules.items():  # a part may stand there under two names
        root.add_module(name, part)
    for name, parameter in original.named_parameters(recurse=False):
        root.register_parameter(name, parameter)
    for name, buffer in original.named_buffers(recurse=False):
        root.register_buffer(name, buffer)
    _tie(root)
    graph = fx.Graph()
    graph.output(graph.graph_copy(original.graph, {}))
    for node in list(graph.nodes):
        if node.op == "call_module" and str(node.target).startswith("_guards"):
            graph.erase_node(node)
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            _replace(root, graph, node, node.target)
    # Inputs and outputs stand one by one: the containers that the program took them in are not copied.
    (answer,) = graph.output_node().args
    if isinstance(answer, tuple | list) and len(answer) == 1:
        graph.output_node().args = (answer[0],)
    made = fx.GraphModule(root, graph, "ExportedNetwork")
    made.graph.eliminate_dead_code()
    made.recompile()
    return made.eval()


def _tie(root: nn.Module) -> None:
    """Parameters that were one in the program are one again: they share their memory."""
    first: dict[tuple[Any, ...], nn.Parameter] = {}
    for part in root.modules():
        for name, parameter in part.named_parameters(recurse=False):
            key = (parameter.data_ptr(), parameter.shape, parameter.stride())
            if parameter.numel():
                part.register_parameter(name, first.setdefault(key, parameter))


def _replace(root: nn.Module, graph: fx.Graph, node: fx.Node, target: torch._ops.OpOverload) -> None:
    name, given = _call(node, target)
    if name not in OPERATORS:
        return
    flowing = given.pop(INPUT.get(name, "input"), None)
    own = {key: _attribute(root, value) if isinstance(value, fx.Node) else value for key, value in given.items()}
    if any(isinstance(given[key], fx.Node) and own[key] is None for key in given):
        return  # a weight that is computed, a stride that depends on the input
    shown = node.meta.get("val")
    axes = getattr(shown[0] if isinstance(shown, tuple | list) and shown else shown, "ndim", None)
    module = rebuilt(name, own, axes)
    if module is None or not isinstance(flowing, fx.Node):
        return
    weight = given["weight"]
    uses = list(node.users) if name.removeprefix("_").startswith("native_") else [node]
    if any(use is not node and use.args[1:] != (0,) for use in uses):
        return  # another node uses the statistics too
    place = _place(root, str(weight.target), module)
    with graph.inserting_before(node):
        layer = graph.call_module(place, (flowing,))
    for use in uses:
        use.replace_all_uses_with(layer)
        graph.erase_node(use)
    if node not in uses:
        graph.erase_node(node)


def _call(node: fx.Node, target: torch._ops.OpOverload) -> tuple[str, dict[str, Any]]:
    """The operator's name and its arguments by name; a product with a transposed weight is the linear map it was."""
    declared = target._schema.arguments
    given = {a.name: a.default_value for a in declared if a.has_default_value()}
    given |= {a.name: value for a, value in zip(declared, node.args, strict=False)} | node.kwargs
    name = target._schema.name.removeprefix("aten::")
    factor = given.get("mat2")
    if name not in ("addmm", "mm") or not isinstance(factor, fx.Node) or given.get("alpha", 1) != 1:
        return name, given
    swaps = {"aten::t": (), "aten::permute": ([1, 0],), "aten::transpose": (0, 1)}
    schema = getattr(factor.target, "_schema", None)
    if schema is None or schema.name not in swaps or factor.args[1:] != swaps[schema.name] or given.get("beta", 1) != 1:
        return name, given
    if name == "mm":
        return "linear", {"input": given["self"], "weight": factor.args[0], "bias": None}
    return "linear", {"input": given["mat1"], "weight": factor.args[0], "bias": given["self"]}


def _attribute(root: nn.Module, node: fx.Node) -> Any:
    """What a node reads from the module; None for what is computed."""
    return operator.attrgetter(str(node.target))(root) if node.op == "get_attr" else None


def _place(root: nn.Module, weight: str, module: nn.Module) -> str:
    """Puts the layer where its weight is, if it is the only one there; else beside it. Returns its name."""
    owner = weight.rpartition(".")[0]
    here = root.get_submodule(owner) if owner else root
    if owner and _same(here, module):
        return owner
    free = owner and type(here) is nn.Module and next(here.children(), None) is None
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    extra = [t for t in (*here.parameters(), *here.buffers()) if id(t) not in own and t.is_floating_point()]
    if not free or extra:
        owner = f"{weight}_{type(module).__name__}".replace(".", "_").lower()
        while hasattr(root, owner):
            owner += "_"
    else:
        for role, buffer in here._buffers.items():  # counters, which the graph may still name
            if module._buffers.get(role) is None:
                module.register_buffer(role, buffer)
    _set(root, owner, module)
    return owner


def _same(here: nn.Module, module: nn.Module) -> bool:
    """The layer that an earlier call of the same module has put here."""
    if type(here) is not type(module) or repr(here) != repr(module):
        return False
    return [id(p) for p in here.parameters()] == [id(p) for p in module.parameters()]


def _set(root: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    (root.get_submodule(owner) if owner else root).add_module(last, module)


def _check_sample_inputs(path: Path, archive: ZipBytes) -> None:
    """torch opens the pickle of the sample inputs without its safe reader when that refuses."""
    for name in archive.entries:
        if SAMPLE_INPUTS not in name or not archive.size(name):
            continue
        content = archive.read(name, MAX_BYTES)
        try:
            inner = _inner_pickle(path, content)
            foreign = foreign_names(read_pickle(io.BytesIO(inner)))
        except (NotAPickle, ValueError) as error:
            raise CheckpointError(f"{quoted(path)} has sample inputs that cannot be followed", reason(error)) from None
        if foreign:
            raise CheckpointError(
                f"{quoted(path)} has sample inputs that call for {listed(sorted(set(foreign)))}",
                "even a trusted archive may run its program only",
                "export it again with tensors as inputs",
            )


def _inner_pickle(path: Path, content: bytes) -> bytes:
    """data.pkl of a torch file inside the archive."""
    # torch takes for a pickle what does not begin like this, and for code what holds constants.pkl.
    if not content.startswith(b"PK\x03\x04"):
        raise ValueError("they are no zip archive")
    with open_archive(path, content=content) as archive:
        names = archive.namelist()
        inner = inner_names(names)
        if "data.pkl" not in inner or "constants.pkl" in inner:
            raise ValueError("they are no PyTorch checkpoint")
        return read_entry(path, archive, next(name for name in names if name.split("/")[1:] == ["data.pkl"]), MAX_BYTES)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's remarks are for the authors of exports."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _none(why: str) -> Network:
    return Network(notes=(f"weights only: {why}",))

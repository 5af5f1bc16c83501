"""Whether a saved state of an optimizer fits the network that a run goes on with, found on copies of both.

No list of names and shapes is kept for this: a copy of the network takes two steps with an optimizer of its own, and
what that one would save then is what the saved state is compared with, tensor by tensor. At last the copy takes a
step from the saved state.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from curvlab.capture.output import answer
from curvlab.errors import CurvlabError
from curvlab.operators.pack import unpack
from curvlab.optim import create
from curvlab.optim.core import Optimizer
from curvlab.quoting import escaped, reason
from curvlab.training.state_schema import is_number

if TYPE_CHECKING:
    from curvlab.training.run import Run

STEPS = 2
"""Steps of the copy: from the second on, every optimizer has what it keeps of the step before."""
_GROUPS = "param_groups"
"""They are compared with those of the run itself, which its schedule has changed."""
_STATE = (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, CurvlabError)


def optimizer_misfit(run: Run, state: Mapping[str, Any]) -> str | None:
    """What of `state["optimizer"]` does not fit the network of the run, as a clause; the run and torch's generators
    stay as they are."""
    devices = range(torch.cuda.device_count()) if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        model, optimizer = _copies(run)
        shapes = [_shapes(optimizer)]
        try:
            for _ in range(STEPS):
                _step(run, model, optimizer)
                shapes.append(_shapes(optimizer))
        except CurvlabError:  # a network that cannot be trained says so when its run goes on
            return None
        saved = {key: value for key, value in state["optimizer"].items() if key != _GROUPS}
        found = next(_misfits(saved, shapes, ()), None)
        if found is not None:
            return f"of its optimizer, {found}"
        return _refused(run, state)


def _refused(run: Run, state: Mapping[str, Any]) -> str | None:
    """Why copies cannot take the state and a step, or None."""
    model, optimizer = _copies(run)
    model.load_state_dict(state["model"])
    try:
        optimizer.load_state_dict(state["optimizer"])
    except _STATE as error:
        return reason(error)
    try:
        _step(run, model, optimizer)
    except CurvlabError:
        return None
    except torch.OutOfMemoryError:
        raise
    except _STATE as error:
        return f"its optimizer cannot take a step ({reason(error)})"
    return None


def _copies(run: Run) -> tuple[nn.Module, Optimizer]:
    model = copy.deepcopy(run.model)
    return model, create(run.settings.optimizer, model, likelihood=run.task.problem.likelihood, **run.used)


def _step(run: Run, model: nn.Module, optimizer: Optimizer) -> None:
    x, y = next(run.epoch_batches(0))
    optimizer.step(lambda: run.task.problem.loss(answer(model, x), y))


def _shapes(optimizer: Optimizer) -> Any:
    return {key: _shape_of(one) for key, one in optimizer.state_dict().items() if key != _GROUPS}


def _shape_of(value: Any) -> Any:
    """The tree with tensors that take no memory; a tensor is replaced by the next step, not kept."""
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta")
    if isinstance(value, Mapping):
        return {key: _shape_of(one) for key, one in value.items()}
    return [_shape_of(one) for one in value] if isinstance(value, list | tuple) else value


def _misfits(value: Any, known: Sequence[Any], path: tuple[Any, ...]) -> Iterator[str]:
    """What of a tree is like none of `known`, which are trees of earlier and later steps.

    Tables by the name of a parameter or block (the second level) may lack some; all others have the keys of one of
    `known`. Where the copy has nothing (an inverse that failed), its step decides.
    """
    if value is None or not known:
        return
    if isinstance(value, Mapping):
        tables = [one for one in known if isinstance(one, Mapping)]
        if not tables:
            if not any(one is None for one in known):
                yield f"{_at(path)} is a table"
            return
        if "operator" in value and all(one.get("operator") != value["operator"] for one in tables):
            yield from _wrong_operator(value, tables[-1], path)
            return
        yield from _wrong_keys(value, tables, path)
        for key, one in value.items():
            yield from _misfits(one, [table[key] for table in tables if key in table], (*path, key))
    elif isinstance(value, list | tuple):
        lists = [one for one in known if isinstance(one, list | tuple)]
        if not any(len(one) == len(value) for one in lists):
            yield f"{_at(path)} has {len(value)} items"
            return
        for place, one in enumerate(value):
            yield from _misfits(one, [other[place] for other in lists if len(other) == len(value)], (*path, place))
    elif isinstance(value, Tensor):
        yield from _wrong_tensor(value, [one for one in known if isinstance(one, Tensor)], path)
    elif not any(_is_plain_like(value, one) for one in known):
        yield f"{_at(path)} is of the type {type(value).__name__}"


def _wrong_keys(value: Mapping[Any, Any], tables: Sequence[Mapping[Any, Any]], path: tuple[Any, ...]) -> Iterator[str]:
    everything = {key for table in tables for key in table}
    if len(path) == 1:
        counts = not everything and all(is_number(one) for one in value.values())  # of what has failed so far
        strange = set() if counts else value.keys() - everything
        if strange:
            yield f"{_at(path)} has an entry '{escaped(min(strange, key=str))}'"
    elif not any(value.keys() == table.keys() for table in tables):
        differing = min(value.keys() ^ tables[-1].keys(), key=str)
        yield f"{_at(path)} {'has an' if differing in value else 'lacks its'} entry '{escaped(differing)}'"


def _wrong_operator(value: Mapping[Any, Any], known: Mapping[Any, Any], path: tuple[Any, ...]) -> Iterator[str]:
    """Of an operator in another form than the copy's: the form depends on the data, the number of rows does not."""
    try:
        rows, needed = unpack(dict(value)).size, unpack(dict(known)).size
    except _STATE as error:
        yield f"{_at(path)} is no operator ({reason(error)})"
        return
    if rows != needed:
        yield f"{_at(path)} has {rows} rows, and the network needs {needed}"


def _wrong_tensor(value: Tensor, tensors: Sequence[Tensor], path: tuple[Any, ...]) -> Iterator[str]:
    if not tensors:
        yield f"{_at(path)} is a tensor"
    elif value.dtype != tensors[-1].dtype:
        yield f"{_at(path)} is of the type {value.dtype}, and the network needs {tensors[-1].dtype}"
    elif not _fits(value.shape, [one.shape for one in tensors if one.ndim == value.ndim]):
        yield f"{_at(path)} has the shape {tuple(value.shape)}, and the network needs {tuple(tensors[-1].shape)}"


def _fits(shape: Sequence[int], shapes: Sequence[Sequence[int]]) -> bool:
    """Whether it is one of `shapes`, but for the axes on which these differ: they grow with every step (the pairs that
    K-BFGS(L) remembers)."""
    sizes = [set(axis) for axis in zip(*shapes, strict=True)]
    return bool(shapes) and all(len(known) > 1 or size in known for size, known in zip(shape, sizes, strict=True))


def _is_plain_like(value: Any, like: Any) -> bool:
    return like is None or (is_number(value) if is_number(like) else type(value) is type(like))


def _at(path: tuple[Any, ...]) -> str:
    return f"'{escaped('.'.join(map(str, path)))}'"

"""Tokens: tokenised text as keyword inputs of a network: input_ids, and beside them attention_mask and the like."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from curvlab.data.dataset import Dataset
from curvlab.data.pairs import dataset
from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100
"""A label that says: no loss here. The number of torch's `cross_entropy` and of the Hugging Face libraries."""
_CAUSAL = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class Tokens(Dataset):
    """Tokenised text. `x` are the input_ids `(n, t)`, `y` the labels: `(n,)`, or `(n, t)` with -100 where none is.

    Attributes:
        beside: further inputs by keyword, each of shape (n, …); `attention_mask` is 0 where padding is.
    """

    beside: Mapping[str, Tensor] = field(default_factory=dict)

    def _rows(self, rows: Tensor, note: str) -> Tokens:
        made = super()._rows(rows, note)
        return replace(self, x=made.x, y=made.y, notes=made.notes, beside={k: v[rows] for k, v in self.beside.items()})


def tokenised(
    ids: Tensor, y: Tensor | None, beside: Mapping[str, Tensor], name: str, source: str, notes: tuple[str, ...]
) -> Tokens:
    """The dataset of input_ids (n, t), labels, and further inputs by keyword.

    Raises:
        DataError: ids or masks that are no whole numbers, shapes that do not go together, an example without a token.
    """
    for key, values in {"input_ids": ids, **beside}.items():
        if values.is_floating_point() or values.ndim != 2 or values.shape[0] != ids.shape[0]:
            found = f"{source} has {key} of shape {tuple(values.shape)} and type {values.dtype}"
            raise DataError(found, f"whole numbers of shape (examples, positions) go with {tuple(ids.shape)} input_ids")
    mask = beside.get("attention_mask")
    if mask is not None and (mask.shape != ids.shape or bool(((mask != 0) & (mask != 1)).any())):
        raise DataError(
            f"{source} has an attention_mask of shape {tuple(mask.shape)}", "0 and 1 for each id are needed"
        )
    if mask is not None and bool((mask.sum(1) == 0).any()):
        raise DataError(f"{source} has an example of padding alone", "no statistic of it exists", "leave it out")
    plain = dataset(ids, y, name, source)
    beside = {key: values.long() for key, values in beside.items()}
    return Tokens(name, plain.x.long(), plain.y, source, task=plain.task, notes=notes, beside=beside)


def keyword_inputs(tokens: Tokens, module: nn.Module) -> tuple[dict[str, Tensor] | Tensor, Tensor | None, list[str]]:
    """What `module` is called with, the targets beside its outputs, and notes.

    A network that takes no keyword input_ids gets them as its one input. Labels of a causal language model are moved by
    one position, since its outputs speak of the next token.

    Raises:
        DataError: an id that the embedding has no row for.
    """
    _check_vocabulary(tokens.x, module)
    notes = list(tokens.notes)
    accepted = _keywords(module)
    named = "input_ids" in accepted
    kept = {key: values for key, values in tokens.beside.items() if named and key in accepted}
    dropped = [key for key in tokens.beside if key not in kept]
    if dropped:
        notes.append(f"the network takes no {', '.join(dropped)}: not used")
    y = tokens.y
    if y is not None and y.ndim == 2 and y.shape == tokens.x.shape and type(module).__name__.endswith(_CAUSAL):
        y = y.roll(-1, 1)
        y[:, -1] = IGNORED
        notes.append("labels moved by one position: a causal language model's outputs speak of the next token")
    if y is not None and not y.is_floating_point():
        left_out = int((y == IGNORED).sum())
        if left_out:
            notes.append(f"{y.numel() - left_out} of {y.numel()} labels count; the others are {IGNORED}")
    mask = kept.get("attention_mask")
    if mask is not None and not bool(mask.all()):
        notes.append(f"{int(mask.sum())} of {mask.numel()} positions count; the others are padding")
    if not named:
        return tokens.x, y, notes
    inputs = {"input_ids": tokens.x, **kept}
    if "position_ids" in accepted and (places := _positions(inputs, module)) is not None:
        inputs["position_ids"] = places
    return inputs, y, notes


def _keywords(module: nn.Module) -> set[str]:
    """Names that the network takes inputs by: of an imported graph its own, else its forward's."""
    graph = {value.name for value in getattr(module, "inputs", ()) if hasattr(value, "name")}
    return graph or set(inspect.signature(module.forward).parameters)


def _positions(inputs: Mapping[str, Tensor], module: nn.Module) -> Tensor | None:
    """Positions 0 to t − 1 of every example, for a network that would count so itself, once for the whole batch.

    An embedding of positions that sees one row for all examples has no statistics of each. Asked on two examples, since
    some networks count otherwise.
    """
    import torch

    if "position_ids" in inputs:
        return None
    from curvlab.capture.output import output_tensor

    ids = inputs["input_ids"]
    places = torch.arange(ids.shape[1]).expand(ids.shape)
    device = next((p.device for p in module.parameters()), ids.device)
    first = {key: values[:2].to(device) for key, values in inputs.items()}
    try:
        with torch.no_grad():
            plain = output_tensor(module(**first))
            counted = output_tensor(module(**first, position_ids=places[:2].to(device)))
    except Exception:  # the analysis will say what is wrong with the inputs
        return None
    return places.contiguous() if torch.equal(plain, counted) else None


def _check_vocabulary(ids: Tensor, module: nn.Module) -> None:
    from torch import nn

    asked: Any = getattr(module, "get_input_embeddings", None)
    table = asked() if callable(asked) else None
    if not isinstance(table, nn.Embedding):
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= table.num_embeddings:
        found, why = f"the inputs hold token ids from {low} to {high}", f"the embedding has {table.num_embeddings} rows"
        raise DataError(found, why, "use the model's own tokenizer")

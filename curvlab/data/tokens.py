"""Tokens: tokenised text as keyword inputs of a network: input_ids, and beside them attention_mask and the like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curvlab.data.convention import keywords_of
from curvlab.data.named_inputs import NamedInputs
from curvlab.data.pairs import dataset
from curvlab.data.sequence_targets import IGNORED, SequenceTargets
from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["IGNORED", "Tokens", "keyword_inputs", "named", "tokenised"]


@dataclass(frozen=True)
class Tokens(NamedInputs):
    """Tokenised text. `x` are the input_ids `(n, t)`, `y` the labels: `(n,)`, or `(n, t)` with -100 where none is."""


def tokenised(
    ids: Tensor, y: Tensor | None, beside: Mapping[str, Tensor], name: str, source: str, notes: tuple[str, ...]
) -> Tokens:
    """The dataset of input_ids (n, t), labels, and further inputs by keyword.

    Raises:
        DataError: ids or masks that are no whole numbers, shapes that do not go together, an example without a token.
    """
    for key, values in {"input_ids": ids, **beside}.items():
        tokens = key.endswith(("_ids", "_mask"))
        if values.shape[:1] != ids.shape[:1] or (tokens and (values.is_floating_point() or values.ndim != 2)):
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
    return Tokens(name, plain.x.long(), plain.y, source, task=plain.task, notes=notes, beside=_typed(beside))


def named(
    key: str, x: Tensor, y: Tensor | None, beside: Mapping[str, Tensor], source: str, notes: tuple[str, ...]
) -> NamedInputs:
    """The dataset of another main input by keyword (pixel_values, input_features, …) and what stands beside it.

    Raises:
        DataError: shapes that do not go together, values that are not finite.
    """
    for other, values in beside.items():
        if values.shape[:1] != x.shape[:1]:
            found = f"{source} has {other} of shape {tuple(values.shape)}"
            raise DataError(found, f"{key} has {len(x)} examples")
    plain = dataset(x, y, key, source)
    return NamedInputs(key, plain.x, plain.y, source, task=plain.task, notes=notes, key=key, beside=_typed(beside))


def _typed(beside: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: values if values.is_floating_point() else values.long() for key, values in beside.items()}


def keyword_inputs(
    data: NamedInputs, module: nn.Module, loss: str = "auto"
) -> tuple[dict[str, Tensor] | Tensor, Tensor | None, list[str]]:
    """What `module` is called with, the targets beside its outputs, and notes.

    A network that does not take the main input by its keyword gets it as its one input. Targets are what the kind of
    network is trained on (`SequenceTargets`).

    Args:
        data: the examples.
        module: the network.
        loss: the user's choice, "auto" without.

    Raises:
        DataError: an id that the embedding has no row for.
    """
    if data.key == "input_ids":
        _check_vocabulary(data.x, module)
    notes = list(data.notes)
    accepted = keywords_of(module)
    by_name = data.key in accepted
    inputs: dict[str, Any] = {data.key: data.x}
    inputs |= {key: values for key, values in data.beside.items() if by_name and key in accepted}
    dropped = [key for key in data.beside if key not in inputs]
    if dropped:
        notes.append(f"the network takes no {', '.join(dropped)}: not used")
    y, targets = data.y, SequenceTargets.of(module, loss)
    if targets is not None:
        targets = targets.checked(inputs, y)
        inputs, y = targets.batch(inputs, y)
        notes.append(targets.sentence(y))
    notes += _counts(inputs, y)
    if not by_name:
        return data.x, y, notes
    if "position_ids" in accepted and (places := _positions(inputs, module)) is not None:
        inputs["position_ids"] = places
    return inputs, y, notes


def _counts(inputs: Mapping[str, Tensor], y: Tensor | None) -> list[str]:
    """How many labels and positions count, where it is not all of them."""
    notes = []
    if y is not None and not y.is_floating_point():
        left_out = int((y == IGNORED).sum())
        if left_out == y.numel():
            why = "no position has a target: a single token has no next one, and padding none at all"
            raise DataError(f"all {y.numel()} labels are {IGNORED}", why, "give longer sequences")
        if left_out:
            notes.append(f"{y.numel() - left_out} of {y.numel()} labels count; the others are {IGNORED}")
    mask = inputs.get("attention_mask")
    if mask is not None and not bool(mask.all()):
        notes.append(f"{int(mask.sum())} of {mask.numel()} positions count; the others are padding")
    return notes


def _positions(inputs: Mapping[str, Tensor], module: nn.Module) -> Tensor | None:
    """Positions 0 to t − 1 of every example, for a network that would count so itself, once for the whole batch.

    An embedding of positions that sees one row for all examples has no statistics of each. Asked on two examples, since
    some networks count otherwise.
    """
    import torch

    if "position_ids" in inputs or "input_ids" not in inputs:
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

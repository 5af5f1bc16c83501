"""Tensor names: their order, their split into layer and role, and the wrappers that training left on them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DIGITS = re.compile(r"([0-9]+)")
# State that is stored beside a wrapped network without the wrapper's prefix (torch.optim.swa_utils.AveragedModel).
_BESIDE_THE_WRAPPER = frozenset({"n_averaged"})


def natural_key(name: str) -> tuple[str | tuple[int, str], ...]:
    """Sort key that puts `"layer.2"` before `"layer.10"`; numbers of any length compare without being parsed."""
    pieces = _DIGITS.split(name)
    return tuple(
        (len(digits := piece.lstrip("0")), digits) if index % 2 else piece for index, piece in enumerate(pieces)
    )


def split(name: str) -> tuple[str, str]:
    """`"encoder.0.weight"` → (`"encoder.0"`, `"weight"`): the layer and the tensor's role in it; no dot, no layer."""
    layer, _, role = name.rpartition(".")
    return layer, role


def last_word(layer: str) -> str:
    """The last component of a layer's name that is not a number: `"embeddings.0"` → `"embeddings"`."""
    words = [word for word in layer.split(".") if word and not word.isdecimal()]
    return words[-1] if words else ""


def words(layer: str) -> set[str]:
    """Lower-case words of the last component, cut at `_`, digits and capitals: `"LayerNorm_1"` → {"layer", "norm"}."""
    word = re.sub(r"([a-z])([A-Z])", r"\1_\2", last_word(layer))
    return {part.lower() for part in re.split(r"[^A-Za-z]+", word) if part}


def without_wrappers(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Names without `module.` (DataParallel, AveragedModel) and `_orig_mod.` (torch.compile), as often as they stand.

    `module.` goes only when every name carries it, since a network may have a part of that name; `_orig_mod` is torch's
    own word and goes wherever it stands.

    Returns:
        plain name -> name in the file, in the file's order; and what was taken off, for the user's notes. Nothing is
        taken off when two names would become one.
    """
    plain = {name: name for name in names}
    removed: list[str] = []
    while True:
        shorter, what = _one_wrapper_less(plain)
        if what is None or len(shorter) < len(plain):
            return plain, removed
        plain = shorter
        if what not in removed:
            removed.append(what)


def _one_wrapper_less(plain: dict[str, str]) -> tuple[dict[str, str], str | None]:
    if any("_orig_mod" in name.split(".")[:-1] for name in plain):
        return {
            ".".join([*(part for part in name.split(".")[:-1] if part != "_orig_mod"), split(name)[1]]): stored
            for name, stored in plain.items()
        }, "_orig_mod."
    wrapped = [name for name in plain if name not in _BESIDE_THE_WRAPPER]
    if wrapped and all(name.startswith("module.") and len(name) > len("module.") for name in wrapped):
        return {name.removeprefix("module."): stored for name, stored in plain.items()}, "module."
    return plain, None

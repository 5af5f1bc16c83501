"""Tensor names: their order, their split into layer and role, and the wrappers that training left on them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# No framework makes names of this length; much longer ones only serve to slow a reader down.
MAX_NAME = 4096
_PARALLEL = re.compile(r"(?:module\.(?=.))+")
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

    `module.` goes only as often as every name carries it, since a network may have a part of that name; `_orig_mod` is
    torch's own word and goes wherever it stands.

    Returns:
        plain name -> name in the file, in the file's order; and what was taken off, for the user's notes. Nothing is
        taken off when two names would become one.
    """
    plain = {name: name for name in names}
    removed: list[str] = []
    for wrapper, shortened in (("_orig_mod.", _without_compiled), ("module.", _without_parallel)):
        shorter = {short: plain[name] for name, short in shortened(list(plain)).items()}
        if len(shorter) == len(plain) and shorter.keys() != plain.keys():
            plain, removed = shorter, [*removed, wrapper]
    return plain, removed


def _without_compiled(names: list[str]) -> dict[str, str]:
    def shortened(name: str) -> str:
        *layer, role = name.split(".")
        return ".".join([*(part for part in layer if part != "_orig_mod"), role])

    return {name: shortened(name) if "_orig_mod." in name else name for name in names}


def _without_parallel(names: list[str]) -> dict[str, str]:
    wrapped = {name: _PARALLEL.match(name) for name in names if name not in _BESIDE_THE_WRAPPER}
    shared = min((match.end() if match else 0 for match in wrapped.values()), default=0)
    return {name: name[shared:] if name in wrapped else name for name in names}

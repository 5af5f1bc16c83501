"""LoraSettings: what an adapter_config.json says of a low-rank update: its scale, layer by layer, and its base."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats.model_config import read_config
from curvlab.formats.peft.place import SETTINGS
from curvlab.quoting import quoted

_NAME = re.compile(r"\^?[\w.]+")


@dataclass(frozen=True)
class LoraSettings:
    """Scales of the updates.

    Attributes:
        kind: "LORA", or the name of another method.
        base: the name of the base model, which is data: a path, or a name on a server.
        alpha: α of every layer that `alphas` does not name.
        alphas: end of a layer's name -> its α.
        root: whether the scale is α/√r (rank-stabilised) and not α/r.
        other: what else changes the update, and is not known here ("use_dora").
    """

    kind: str
    base: str
    alpha: float
    alphas: Mapping[str, float]
    root: bool
    other: tuple[str, ...]

    def scale(self, layer: str, rank: int) -> float:
        """α/r, or α/√r, of a layer whose update has this rank."""
        alpha = next((value for name, value in self.alphas.items() if _is_of(layer, name)), self.alpha)
        return alpha / (math.sqrt(max(1, rank)) if self.root else max(1, rank))


def read_settings(folder: Path) -> LoraSettings:
    """The settings in a folder.

    Raises:
        CheckpointError: no valid JSON, a link out of the folder, or numbers that are none.
    """
    table = read_config(folder, SETTINGS)
    pattern = table.get("alpha_pattern") or {}
    if not isinstance(pattern, dict):
        raise _wrong(folder, "alpha_pattern", pattern)
    for name in pattern:
        if not _NAME.fullmatch(name):
            why = "curvlab takes ends of names of layers, and no expressions"
            raise CheckpointError(f"{quoted(folder / SETTINGS)} names layers by {quoted(name)}", why)
    other = tuple(key for key in ("use_dora", "lora_bias", "use_qalora", "alora_invocation_tokens") if table.get(key))
    return LoraSettings(
        kind=str(table.get("peft_type", "")),
        base=str(table.get("base_model_name_or_path") or ""),
        alpha=_number(folder, "lora_alpha", table.get("lora_alpha", 8)),
        alphas={name.removeprefix("^"): _number(folder, "alpha_pattern", value) for name, value in pattern.items()},
        root=table.get("use_rslora") is True,
        other=other,
    )


def _is_of(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _number(folder: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e6:
        raise _wrong(folder, key, value)
    return float(value)


def _wrong(folder: Path, key: str, value: Any) -> CheckpointError:
    return CheckpointError(f"{quoted(folder / SETTINGS)} sets {quoted(key)} to {quoted(str(value)[:80])}")

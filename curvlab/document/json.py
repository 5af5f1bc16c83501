"""Results as plain JSON values, with null for every number that does not exist."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def plain(value: Any) -> Any:
    """Frozen results, mappings, sequences and scalars as plain JSON values; what is not finite is None."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "item"):  # a scalar of numpy or torch
        return plain(value.item())
    raise TypeError(f"a result holds a {type(value).__name__}, which JSON has no form for")


def dumps(document: Mapping[str, Any]) -> str:
    """`document` as indented ASCII text, safe to print whatever names it holds; NaN and infinity are errors."""
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=True) + "\n"

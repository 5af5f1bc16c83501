"""The JSON contracts: `curvlab.analysis/1`, made of plain values, with null for every number that does not exist."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curvlab.analyses.results import Analysis

SCHEMA = "curvlab.analysis/1"


def to_dict(analysis: Analysis) -> dict[str, Any]:
    """An analysis as the contract `curvlab.analysis/1`: nothing but what JSON has a form for."""
    content = plain(analysis)
    return {
        "schema": SCHEMA,
        "curvlab": importlib.metadata.version("curvlab"),
        **{key: content[key] for key in ("command", "seed", "environment", "model", "data")},
        **{key: content[key] for key in ("settings", "coverage", "layers", "fop", "hessian", "notes")},
    }


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

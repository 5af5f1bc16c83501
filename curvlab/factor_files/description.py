"""The metadata of a factor file, `curvlab.factors/1`: JSON that says what its tensors are of and how they are scaled.

Keys may be added; a changed meaning needs a new number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from curvlab.factor_files.layer_factors import Factors, LayerFactors, Origin
from curvlab.factor_files.layer_shape import LayerShape
from curvlab.formats import strict_json
from curvlab.formats.names import MAX_NAME
from curvlab.quoting import quoted

KEY, SCHEMA = "curvlab.factors", "curvlab.factors/1"
LARGEST = 2**31
"""No count and no dimension of a layer is larger."""
WIDEST = 2**26
"""No layer has more inputs or outputs, all groups together; a group's outputs squared are at most as many."""
NORMALIZATION = {
    "mean": "1/(NT) sum_nt a, without the bias's 1",
    "second_moment": "1/(NT) sum_nt a a^T, without the bias's 1",
    "second_moment_rows": "the features a themselves: M is the mean of their outer products",
    "input_factor": 'A = 1/N sum_nt a a^T with the bias\'s 1 = T [[M, mean], [mean^T, 1]]; stored for "reduce" alone',
    "gradient_factor": "1/(NT) sum_nt g g^T (expand), 1/N sum_n g g^T of g summed over t (reduce)",
    "gradient_factor_rows": "g/sqrt(NT): G is the sum of their outer products",
    "fisher_diagonal": "1/N sum_n D_n^2, D_n the gradient of the loss of one example, summed over its positions",
}
"""Written into every file, for whoever reads it without curvlab. N examples, T positions; g is of one example's loss,
not of the mean over a batch."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "fisher_type": ("type-2", "mc", "empirical", "forward-only"),
    "kfac_approx": ("expand", "reduce"),
}


def described(factors: Factors) -> str:
    """The JSON of a file with these factors."""
    origin = asdict(factors.origin)
    facts = {
        "schema": SCHEMA,
        "curvlab": origin.pop("version"),
        "normalization": NORMALIZATION,
        **origin,
        "layers": [_layer(one) for one in factors.values()],
    }
    return json.dumps(facts, allow_nan=False)


def _layer(factors: LayerFactors) -> dict[str, Any]:
    shape = factors.shape
    return {
        "name": shape.name,
        "kind": shape.kind,
        "groups": shape.groups,
        "out_features": shape.out_features,
        "in_features": shape.in_features,
        "by_rows": shape.by_rows,
        "rows": factors.count,
        "parameters": {
            role: {"name": name, "shape": list(shape.shapes[role])} for role, name in shape.parameters.items()
        },
    }


def parse(text: str) -> tuple[Origin, dict[str, tuple[LayerShape, int]]]:
    """What the JSON says: the origin, and layer -> (its shape, rows).

    Raises:
        ValueError: it says something else; one sentence.
    """
    facts = strict_json.parse(text)
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        found = facts.get("schema") if isinstance(facts, dict) else facts
        raise ValueError(f"its schema is {quoted(found)}, not {SCHEMA}")
    for key, words in CHOICES.items():
        if facts.get(key) not in words:
            raise ValueError(f"{key} is {quoted(facts.get(key))}, not one of {', '.join(words)}")
    data = facts.get("data")
    if not isinstance(data, dict):
        raise ValueError("it does not say of which data the factors are")
    seed = facts.get("seed")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ValueError(f"its seed is {quoted(seed)}")
    origin = Origin(
        examples=_count(facts, "examples", 1),
        fisher_type=facts["fisher_type"],
        mc_samples=_count(facts, "mc_samples", 1),
        kfac_approx=facts["kfac_approx"],
        likelihood=_text(facts, "likelihood", optional=True),
        seed=seed,
        sha256=_text(facts, "sha256", optional=True),
        data=data,
        version=_text(facts, "curvlab") or "",
    )
    listed = facts.get("layers")
    if not isinstance(listed, list) or not listed:
        raise ValueError("it lists no layers")
    layers: dict[str, tuple[LayerShape, int]] = {}
    for entry in listed:
        shape = _shape(entry)
        if shape.name in layers:
            raise ValueError(f"it lists the layer {quoted(shape.name)} twice")
        layers[shape.name] = shape, _count(entry, "rows", 0)
    return origin, layers


def _shape(entry: Any) -> LayerShape:
    if not isinstance(entry, dict):
        raise ValueError(f"it lists {quoted(entry)} as a layer")
    name, parameters = _text(entry, "name") or "", entry.get("parameters")
    if not isinstance(parameters, dict) or not parameters or type(entry.get("by_rows")) is not bool:
        raise ValueError(f"the layer {quoted(name)} is not described")
    groups, outputs, inputs = (_count(entry, key, 1) for key in ("groups", "out_features", "in_features"))
    if groups * max(inputs, outputs) > WIDEST or (groups > 1 and groups * outputs**2 > WIDEST):
        raise ValueError(f"the layer {quoted(name)} has {groups:,} times {outputs:,} outputs and {inputs:,} inputs")
    return LayerShape(
        name=name,
        kind=_text(entry, "kind") or "",
        groups=groups,
        out_features=outputs,
        in_features=inputs,
        parameters={role: _text(one, "name") or "" for role, one in parameters.items()},
        shapes={role: _sizes(one) for role, one in parameters.items()},
        by_rows=entry["by_rows"],
    )


def _sizes(entry: Any) -> tuple[int, ...]:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or len(shape) > 16 or not all(type(n) is int and 0 < n < LARGEST for n in shape):
        raise ValueError(f"a parameter has the shape {quoted(shape)}")
    return tuple(shape)


def _count(entry: Mapping[str, Any], key: str, least: int) -> int:
    value = entry.get(key)
    if type(value) is not int or not least <= value < LARGEST:
        raise ValueError(f"{key} is {quoted(value)}, not a number from {least} to {LARGEST - 1:,}")
    return value


def _text(entry: Any, key: str, *, optional: bool = False) -> str | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    if value is None and optional:
        return None
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise ValueError(f"{key} is {quoted(value)}, not a name")
    return value

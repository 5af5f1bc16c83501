"""Directions beside the baseline's: means over the measured steps, layers, the sweep of the damping, what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from curvlab.document.numbers import ABSENT, short
from curvlab.document.records import Records
from curvlab.document.section import Note, Section
from curvlab.document.table import Column, Group, Table, plain_table
from curvlab.optim.declared import settings_of
from curvlab.optim.registry import OPTIMIZERS
from curvlab.reports.shown_names import shown_names
from curvlab.reports.sparkline import sparkline

if TYPE_CHECKING:
    from curvlab.comparison.results import Comparison, Directions

SPARK = 12
HEADING = 16
"""Letters of a layer's name above its column."""
RECORDS = ("optimizer", "layer", "step", "cosine", "fisher_cosine", "predicted_decrease")


def direction_sections(comparison: Comparison) -> Iterator[Section]:
    """One row per optimizer: its means; its layers; its cosines by damping; and what the numbers mean."""
    found = comparison.optimizers
    rows = list(found.values())
    yield Section((Table(tuple(found), (Group("", _overall(comparison, rows)),), "optimizer"),), _heading(comparison))
    columns, left_out = _layers(rows)
    yield Section((plain_table(list(found), columns, "optimizer"),), f"layers: {left_out}" if left_out else "")
    swept = {label: one for label, one in found.items() if one.damping}
    if swept:
        reference = comparison.reference
        extra = {} if reference is None or not reference.damping else {f"({comparison.baseline})": reference}
        table = plain_table([*swept, *extra], _sweep([*swept.values(), *extra.values()]), "optimizer")
        yield Section((table,), "Mean cosine by damping; the baseline's own stays")
    remarks = tuple(Note(remark, tone="aside") for remark in _remarks(comparison))
    yield Section((*remarks, *(Note(note, "note", tone="aside") for note in comparison.notes)))


def direction_records(comparison: Comparison) -> Records:
    """One row per optimizer, layer and step; `predicted_decrease` is of all layers together."""
    rows = [
        (label, layer, step, found.cosine[layer], found.fisher_cosine[layer], found.decrease)
        for label, one in comparison.optimizers.items()
        for step, found in zip(comparison.measured, one.agreements, strict=True)
        for layer in one.layers
    ]
    return Records(RECORDS, tuple(rows))


def _heading(comparison: Comparison) -> str:
    data, way = comparison.data, f"{comparison.steps} steps of its trajectory"
    if len(comparison.measured) == 1:
        way = f"the weights of the model, {comparison.steps} batch{'es' if comparison.steps > 1 else ''}"
    settings = "" if comparison.reference is None else damping_of(comparison.reference)
    damped = f" ({settings})" if settings else ""
    return (
        f"Directions beside {comparison.baseline}{damped} on {comparison.problem}: {way}, "
        f"batches of {data.get('batch_size')} from {data.get('source')}, seed {comparison.seed}"
    )


def _overall(comparison: Comparison, rows: Sequence[Directions]) -> tuple[Column, ...]:
    reference = comparison.reference
    columns = [
        Column("damping", tuple(damping_of(one) or ABSENT for one in rows)),
        Column("cosine", tuple(_cosine(one.mean) for one in rows)),
        Column("all layers", tuple(_cosine(one.mean_whole) for one in rows)),
        Column("lowest layer", tuple(_cosine(min(_there(one.mean_cosine.values()), default=None)) for one in rows)),
        Column("in F", tuple(_cosine(one.mean_fisher) for one in rows)),
    ]
    if reference is not None:
        base = [one.decrease for one in reference.agreements]
        columns.append(Column("decrease", tuple(_relative(one, base) for one in rows)))
    if len(comparison.measured) > 1:
        columns.append(Column("along the way", tuple(_line(one) for one in rows), align="left"))
    return tuple(columns)


def _layers(rows: Sequence[Directions]) -> tuple[list[tuple[str, list[str]]], str]:
    """A column per layer, and what its headings leave out of the names."""
    names = rows[0].layers if rows else ()
    shown = shown_names(names, HEADING)
    cells = [(shown.texts[name], [_cosine(one.mean_cosine[name]) for one in rows]) for name in names]
    return cells, shown.note()


def _sweep(rows: Sequence[Directions]) -> list[tuple[str, list[str]]]:
    values = [point["value"] for point in rows[0].damping]
    return [(short(value), [_cosine(one.damping[k]["mean"]) for one in rows]) for k, value in enumerate(values)]


def _remarks(comparison: Comparison) -> list[str]:
    remarks = [
        "cosine: between the optimizer's direction and the baseline's, mean over layers"
        + (" and steps" if len(comparison.measured) > 1 else ""),
        "all layers: the cosine with all layers together as one vector; in F: in the metric of the exact Fisher blocks",
    ]
    if comparison.reference is not None:
        remarks.append(
            "decrease: what the quadratic model g·d − ½ dᵀFd promises at the best step along the direction,"
            " as a share of the baseline's"
        )
    if len(comparison.measured) > 1:
        remarks.append("along the way: the mean cosine of every step, from 0 (▁) to 1 (█)")
    return remarks


def damping_of(one: Directions) -> str:
    """`λ 0.1`, by the symbol that its paper has for it; empty where there is none."""
    name = next((name for name in ("damping", "ridge", "eps") if name in one.settings), None)
    if name is None:
        return ""
    declared = settings_of(OPTIMIZERS[one.optimizer]) if one.optimizer in OPTIMIZERS else {}
    symbol = declared[name].setting.symbol if name in declared else ""
    return f"{symbol or 'λ'} {short(one.settings[name])}"


def _relative(one: Directions, base: Sequence[float | None]) -> str:
    shares = [a.decrease / b for a, b in zip(one.agreements, base, strict=True) if a.decrease is not None and b]
    return short(sum(shares) / len(shares)) if shares else ABSENT


def _line(one: Directions) -> str:
    means = []
    for step in one.agreements:
        there = _there(step.cosine.values())
        means.append(sum(there) / len(there) if there else None)
    return sparkline(means, 0.0, 1.0, SPARK)


def _there(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _cosine(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"

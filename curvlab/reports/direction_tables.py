"""Directions beside the baseline's in a terminal: one row per optimizer, one column per layer, cosines as a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curvlab.reports.escape import escape
from curvlab.reports.numbers import ABSENT, count, short, size
from curvlab.reports.sparkline import sparkline
from curvlab.reports.tables import GAP, shortened

if TYPE_CHECKING:
    from curvlab.comparison.plan import Plan
    from curvlab.comparison.results import Comparison, Directions

Column = tuple[str, list[str]]
SPARK, NAME = 12, 24


def print_directions(console: Console, comparison: Comparison) -> None:
    """Means over the measured steps; then the layers, the sweep of the damping, and what the numbers mean."""
    found = comparison.optimizers
    rows = list(found.values())
    _lines(console, [_heading(comparison)], "bold")
    _table(console, list(found), _overall(comparison, rows))
    console.print()
    for columns in _by_width(_layers(rows), console.width - _widest(found) - GAP):
        _table(console, list(found), columns)
        console.print()
    swept = {label: one for label, one in found.items() if one.damping}
    if swept:
        _lines(console, ["Mean cosine by damping; the baseline's own stays"], "bold")
        reference = comparison.reference
        extra = {} if reference is None or not reference.damping else {f"({comparison.baseline})": reference}
        _table(console, [*swept, *extra], _sweep([*swept.values(), *extra.values()]))
        console.print()
    _lines(console, _remarks(comparison), "dim")


def print_plan(console: Console, plan: Plan) -> None:
    """What a comparison would look at, and the memory of the exact Fisher blocks."""
    _lines(console, ["Plan: nothing was computed"], "bold")
    for label, entry in plan.optimizers.items():
        settings = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "optimizer")
        _lines(console, [f"{label}: {entry['optimizer']}{f' ({settings})' if settings else ''}"], "")
    if plan.layers:
        total = sum(layer.parameters for layer in plan.layers)
        _lines(
            console,
            [f"directions beside {plan.baseline} on {plan.problem}: {plan.steps} batches of {plan.batch_size}"],
            "",
        )
        names = [layer.name for layer in plan.layers]
        columns = [
            ("parameters", [count(layer.parameters) for layer in plan.layers]),
            ("exact Fisher block", [size(layer.block_bytes) for layer in plan.layers]),
        ]
        _table(
            console,
            [*names, "all"],
            [
                (head, [*cells, last])
                for (head, cells), last in zip(
                    columns, (count(total), size(sum(layer.block_bytes for layer in plan.layers))), strict=True
                )
            ],
            "layer",
        )
    if plan.runs:
        _lines(console, [f"{len(plan.runs)} training runs, each in a process of its own"], "")


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


def _overall(comparison: Comparison, rows: Sequence[Directions]) -> list[Column]:
    reference = comparison.reference
    base = None if reference is None else [one.decrease for one in reference.agreements]
    columns = [
        ("damping", [damping_of(one) or ABSENT for one in rows]),
        ("cosine", [_cosine(one.mean) for one in rows]),
        ("as one", [_cosine(one.mean_whole) for one in rows]),
        ("lowest layer", [_cosine(min(_there(one.mean_cosine.values()), default=None)) for one in rows]),
        ("in F", [_cosine(one.mean_fisher) for one in rows]),
    ]
    if base is not None:
        columns.append(("decrease", [_relative(one, base) for one in rows]))
    if len(comparison.measured) > 1:
        columns.append(("along the way", [_line(one) for one in rows]))
    return columns


def _layers(rows: Sequence[Directions]) -> list[Column]:
    names = rows[0].layers if rows else ()
    return [(shortened(escape(name), 16), [_cosine(one.mean_cosine[name]) for one in rows]) for name in names]


def _sweep(rows: Sequence[Directions]) -> list[Column]:
    values = [point["value"] for point in rows[0].damping]
    return [(short(value), [_cosine(one.damping[k]["mean"]) for one in rows]) for k, value in enumerate(values)]


def _remarks(comparison: Comparison) -> list[str]:
    remarks = [
        "cosine: between the optimizer's direction and the baseline's, mean over layers"
        + (" and steps" if len(comparison.measured) > 1 else ""),
        "as one: the same of all layers together as one vector; in F: in the metric of the exact Fisher blocks",
    ]
    if comparison.reference is not None:
        remarks.append(
            "decrease: what the quadratic model g·d − ½ dᵀFd promises at the best step along the direction,"
            " as a share of the baseline's"
        )
    if len(comparison.measured) > 1:
        remarks.append("along the way: the mean cosine of every step, from 0 (▁) to 1 (█)")
    return [*remarks, *(f"note: {note}" for note in comparison.notes)]


def damping_of(one: Directions) -> str:
    """`λ 0.1`, by the symbol that its paper has for it; empty where there is none."""
    name = next((name for name in ("damping", "ridge") if name in one.settings), None)
    if name is None:
        return ""
    from curvlab.optim.declared import settings_of
    from curvlab.optim.registry import OPTIMIZERS

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


def _widest(names: Iterable[str]) -> int:
    """Cells of the column of names."""
    return min(NAME, max(cell_len("optimizer"), *(cell_len(escape(name)) for name in names)))


def _by_width(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """Columns in as few tables as fit."""
    tables: list[list[Column]] = [[]]
    used = 0
    for column in columns:
        wide = GAP + max(cell_len(column[0]), 6)
        if tables[-1] and used + wide > room:
            tables.append([])
            used = 0
        tables[-1].append(column)
        used += wide
    return [table for table in tables if table]


def _table(console: Console, names: Sequence[str], columns: Sequence[Column], what: str = "optimizer") -> None:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    table.add_column(what, no_wrap=True, max_width=NAME)
    for heading, _ in columns:
        table.add_column(heading, justify="left" if heading == "along the way" else "right", no_wrap=True)
    for name, *cells in zip(names, *(cells for _, cells in columns), strict=True):
        table.add_row(Text(shortened(escape(name), NAME)), *map(Text, cells))
    console.print(table)


def _lines(console: Console, texts: Sequence[str], style: str) -> None:
    for text in texts:
        for place, line in enumerate(Text(escape(text), style).wrap(console, console.width - 2)):
            line.rstrip()
            console.print(Text("  ").append_text(line) if place else line)

"""Σ rrᵀ kept as its rows r while those are few: less memory, and its eigenvalues from less work.

Sums and averages hold, under a name K of the recipe's own, the matrix `[g, d, d]` or its diagonal `[g, d]`, or else
under `rows_of(K)` the rows `[g, r, d]`, in the type that they came in. Of an average "K scale" is what the product of
the rows is multiplied with. Where neither fits, the rows are those of a sketch (frequent directions), with "K lost",
the bound of what it misses, and "K energy" `[d]`, the exact diagonal. "K columns" `[s]` are the places of the only
columns that are not zero, where d of the above is their number, of a matrix with "K width" of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

import torch
from torch import Tensor

from curvlab.curvatures.curvature import State, plus
from curvlab.curvatures.room import Room
from curvlab.linalg.float64 import double, double_gram, pieces
from curvlab.linalg.frequent_directions import Directions, absorbed
from curvlab.linalg.gram import finished, gram
from curvlab.operators.on_columns import OnColumns
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank, Operator
from curvlab.operators.scaled import scaled
from curvlab.operators.sketch import Sketch

PARTS = (" rows", " scale", " lost", " energy", " columns", " width")
AS_THEY_ARE = (" rows", " columns", " width")
"""What keeps its type where statistics are converted: rows are multiplied in float64 when they are read."""


def rows_of(key: str) -> str:
    """What the rows are called that stand for the matrix `key`."""
    return f"{key} rows"


def key_of(name: str) -> str:
    """What the matrix is called that `name` is a part of."""
    return next((name.removesuffix(part) for part in PARTS if name.endswith(part)), name)


def holds(state: State, key: str) -> bool:
    """Whether the matrix `key` is there, in whatever form."""
    return key in state or rows_of(key) in state


def rows_or_square(
    key: str, rows: Tensor, room: Room, columns: Tensor | None = None, width: int | None = None
) -> State:
    """The rows `[g, r, d]` while they are few, else their product, of which the upper triangle counts, or a sketch.

    Args:
        key: of the matrix.
        rows: r.
        room: for it.
        columns: the places of these columns, ascending, where all others are zero.
        width: of the whole matrix, where `columns` are given.
    """
    (groups, count, own), whole = rows.shape, width or rows.shape[-1]
    places = {} if columns is None else {f"{key} columns": columns, f"{key} width": torch.tensor(whole)}
    if groups > 1 or room.square(whole):
        return places | ({rows_of(key): rows} if count < own else {key: _product(rows, room)})
    if count <= room.rows(whole):
        return places | {rows_of(key): rows}
    return places | _sketch(key, {rows_of(key): rows[:, :0]}, [rows], room)


def add_rows_or_square(held: State, fresh: State, key: str, own: Container[str], room: Room) -> None:
    """Add the sum of one more batch to `held`, as `Curvature.add` does: rows are multiplied out, or sketched, once
    there are too many of them."""
    if not holds(held, key):
        held.update({name: value for name, value in fresh.items() if key_of(name) == key})
        return
    if f"{key} columns" in held:
        fresh, own = _on_shared_columns(held, fresh, key), ()
    name = rows_of(key)
    rows = [state[name] for state in (held, fresh) if name in state]
    if len(rows) == 2:
        (groups, _, columns), count = rows[0].shape, sum(part.shape[1] for part in rows)
        whole = int(held.get(f"{key} width", columns))
        if groups > 1 or room.square(whole):
            few = count < columns
        elif not (few := count <= room.rows(whole) and f"{key} lost" not in held | fresh):
            held.update(_sketch(key, held, [fresh[name]], room, fresh))
            return
        if few:
            held[name] = torch.cat(rows, dim=1)
            return
    held.pop(name, None)
    overwritten = key in own
    for part in rows:
        held[key] = plus(held.get(key), _product(part, room), overwritten)
        overwritten = True
    if key in fresh:
        held[key] = plus(held.get(key), fresh[key], overwritten)


def averaged(sums: State, key: str, count: float, dtype: torch.dtype | None) -> State:
    """Σ rrᵀ / count from its sum; rows stay as they are, and remember the factor."""
    if rows_of(key) in sums:
        parts = {name: value for name, value in sums.items() if key_of(name) == key}
        return {**parts, f"{key} scale": torch.tensor(1 / count, dtype=torch.float64)}
    square = sums[key]
    mean = square.to(dtype or square.dtype) / count if square.ndim == 2 else finished(square, count, dtype)
    return {key: mean} | {name: sums[name] for name in (f"{key} columns", f"{key} width") if name in sums}


def divided(states: State, count: int) -> State:
    """The mean of `count` averages from their sum, whose rows hold their own factors already."""
    mean: State = {}
    for key in keys_of(states):
        if rows_of(key) in states:
            mean |= averaged(states, key, count, None)
        else:
            own = {name: value for name, value in states.items() if key_of(name) == key}
            mean |= own | {key: own[key] / count}
    return mean


def unscaled(state: State) -> State:
    """The same averages with the factors of rows in the rows: so they can be added up."""
    found = dict(state)
    for key in [one for one in keys_of(state) if f"{one} scale" in state]:
        scale = found.pop(f"{key} scale").item()
        if scale == 1:
            continue
        found[rows_of(key)] = double(found[rows_of(key)]) * scale**0.5
        for part in (f"{key} lost", f"{key} energy"):
            if part in found:
                found[part] = found[part] * scale
    return found


def operator_of(state: State, key: str) -> Operator:
    """The average in the form it is kept in: LowRank, Sketch, Diagonal, Dense or Grouped, or OnColumns one of them."""
    found, places = _operator(state, key), state.get(f"{key} columns")
    return found if places is None else OnColumns(found, places, int(state[f"{key} width"]))


def of_groups(matrices: Tensor) -> Operator:
    """The operator of one matrix per group `[g, d, d]`, or of their diagonals `[g, d]`."""
    if matrices.ndim == 2:
        return Diagonal(matrices.flatten())
    return Dense(matrices[0]) if matrices.shape[0] == 1 else Grouped(matrices)


def keys_of(state: State) -> Iterator[str]:
    """The matrices that are there, each once."""
    yield from dict.fromkeys(map(key_of, state))


def _operator(state: State, key: str) -> Operator:
    if rows_of(key) not in state:
        return of_groups(state[key])
    rows, scale = state[rows_of(key)], state[f"{key} scale"].item()
    if f"{key} lost" in state:
        return Sketch(rows[0], scale, state[f"{key} lost"].item(), state[f"{key} energy"])
    return LowRank(rows[0], scale) if rows.shape[0] == 1 else scaled(Grouped(double_gram(rows)), scale)


def _product(rows: Tensor, room: Room) -> Tensor:
    if room.products == torch.float64:
        return double_gram(rows)
    return gram(rows.to(torch.promote_types(rows.dtype, room.products)))


def _sketch(key: str, held: State, more: list[Tensor], room: Room, fresh: State | None = None) -> State:
    """The rows of `held` and others as a sketch. Those of `fresh` may be one already."""
    rows = held[rows_of(key)]
    size = room.sketch(rows.shape[-1])
    lost, energy = held.get(f"{key} lost"), held.get(f"{key} energy")
    directions = Directions(rows[0][:0] if lost is None else rows[0], 0.0 if lost is None else lost.item())
    energy = squares(rows) if energy is None else energy
    for part in more if lost is not None else [rows, *more]:
        directions = absorbed(directions, part[0], size)
    known = (fresh or {}).get(f"{key} energy")
    energy = energy + (torch.stack([squares(part) for part in more]).sum(0) if known is None else known)
    missed = directions.lost + ((fresh or {})[f"{key} lost"].item() if f"{key} lost" in (fresh or {}) else 0.0)
    return {
        rows_of(key): directions.rows[None],
        f"{key} lost": torch.tensor(missed, dtype=torch.float64),
        f"{key} energy": energy,
    }


def squares(rows: Tensor) -> Tensor:
    """Σ r², the diagonal, of one group."""
    total = double(rows[0, :0]).sum(0)
    for _, piece in pieces(rows[:1]):
        total += piece[0].square().sum(0)
    return total


def _on_shared_columns(held: State, fresh: State, key: str) -> State:
    """`fresh`, with `held`, on the columns that either of them has."""
    places = f"{key} columns"
    mine, theirs = held[places], fresh[places]
    if torch.equal(mine, theirs):
        return fresh
    both: Tensor = torch.cat([mine, theirs]).unique()  # type: ignore[no-untyped-call]
    for state in (held, fresh := dict(fresh)):
        at = torch.searchsorted(both, state[places].contiguous())
        for name in [n for n in state if key_of(n) == key and n.endswith((key, " rows", " energy"))]:
            state[name] = _spread(state[name], at, len(both), square=name == key)
        state[places] = both
    return fresh


def _spread(values: Tensor, at: Tensor, width: int, *, square: bool) -> Tensor:
    """The last axis (of a square matrix the last two) in a wider one, with zeros elsewhere."""
    out = values.new_zeros(*values.shape[:-1], width).index_copy(-1, at, values)
    if not square:
        return out
    return out.new_zeros(*out.shape[:-2], width, width).index_copy(-2, at, out)

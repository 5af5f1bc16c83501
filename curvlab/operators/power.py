"""Powers of damped operators: the preconditioners, alone or many at once with equal sizes in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from curvlab.errors import NumericalError
from curvlab.linalg.by_size import by_size
from curvlab.linalg.eigvalsh import safe_eigvalsh
from curvlab.linalg.float64 import double
from curvlab.linalg.gram import gram
from curvlab.linalg.inverse import Checked, safe_inverse
from curvlab.linalg.roots import inverse_root
from curvlab.operators.eigenbasis import Eigenbasis
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.operators.woodbury import Woodbury, WoodburyInverse

Root = Callable[[Tensor, int], Checked]
"""A `[b, d, d]` and p to A^(−1/p), as `inverse_root` does."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The matrices that a power of an operator needs the same power of, and what to make of the results.

    Attributes:
        stacks: `[b, d, d]` each, positive definite.
        join: the powers of the stacks, in the same order, to the power of the operator.
        values: numbers that are raised elementwise by `join`, and which must be positive for it.
    """

    stacks: tuple[Tensor, ...]
    join: Callable[[Sequence[Tensor]], Operator]
    values: tuple[Tensor, ...] = ()


@singledispatch
def parts(operator: Operator, exponent: float) -> Parts:
    """What a type of operator registers for `power`; (F_1 ⊗ F_2)^e = F_1^e ⊗ F_2^e leaves a power per factor.

    Raises:
        ValueError: this power of this type of operator is not offered.
        TypeError: no function is registered for this type of operator.
    """
    raise TypeError(f"power: no rule is registered for {type(operator).__name__}")


@parts.register
def _(operator: Dense, exponent: float) -> Parts:
    return Parts((operator.matrix[None],), lambda powers: Dense(powers[0][0]))


@parts.register
def _(operator: Grouped, exponent: float) -> Parts:
    return Parts((operator.stack,), lambda powers: Grouped(powers[0]))


@parts.register
def _(operator: Diagonal, exponent: float) -> Parts:
    return Parts((), lambda _: Diagonal(operator.values**exponent), (operator.values,))


@parts.register
def _(operator: Eigenbasis, exponent: float) -> Parts:
    return Parts((), lambda _: Eigenbasis(operator.bases, operator.values**exponent), (operator.values,))


@parts.register
def _(operator: LowRank, exponent: float) -> Parts:
    raise ValueError("an operator of low rank is singular and has no negative power: damp it first")


@parts.register
def _(operator: Woodbury, exponent: float) -> Parts:
    if exponent != -1:
        raise ValueError(f"of a damped low-rank operator the inverse is offered, not the power {exponent:g}")
    rows, lam = operator.rows, operator.lam
    inner = gram(rows.mT)
    inner.diagonal().add_(lam / operator.scale)
    return Parts((inner[None],), lambda powers: WoodburyInverse(rows, powers[0][0], lam))


@parts.register
def _(operator: GroupedKronecker, exponent: float) -> Parts:
    stacks = tuple(factor.stack for factor in operator.factors)
    return Parts(stacks, lambda powers: GroupedKronecker(tuple(Grouped(power) for power in powers)))


@parts.register
def _(operator: Kronecker, exponent: float) -> Parts:
    factors = [parts(factor, exponent) for factor in operator.factors]

    def join(powers: Sequence[Tensor]) -> Operator:
        rest = iter(powers)
        return Kronecker(tuple(factor.join([next(rest) for _ in factor.stacks]) for factor in factors))

    stacks = tuple(stack for factor in factors for stack in factor.stacks)
    return Parts(stacks, join, tuple(values for factor in factors for values in factor.values))


def power(operator: Operator, exponent: float = -1.0, root: Root = inverse_root) -> Operator:
    """F^exponent of a positive definite F, as an operator to apply with `product`.

    −1 for K-FAC, EKFAC, TNT and the block Fisher (by `safe_inverse`), −1/(2k) for Shampoo (by `root`).

    Args:
        operator: damped (`curvlab.operators.damp`). Only `Eigenbasis` and `Diagonal` take other exponents than −1/p
            with a whole p, `Woodbury` takes −1 only.
        root: of the other inverse roots; choose with `partial(inverse_root, method="newton")`.

    Raises:
        NumericalError: F is not finite or not positive definite; `powers` answers None instead.
        ValueError: an exponent that is not offered.
        TypeError: no function is registered for this type of operator.
    """
    (found,) = powers([operator], [exponent], root)
    if found is None:
        raise NumericalError(
            f"the power {exponent:g} of an operator of size {operator.size:,} failed",
            reason(operator),
            "raise the damping",
        )
    return found


def powers(
    operators: Sequence[Operator], exponents: Sequence[float], root: Root = inverse_root
) -> list[Operator | None]:
    """`power` of several operators, matrices of equal size and exponent as one batch; None where it does not exist.

    The device is asked once for each of these batches and once for the answers.
    """
    plans = [parts(operator, exponent) for operator, exponent in zip(operators, exponents, strict=True)]
    oks = [[(values > 0).all() & values.isfinite().all() for values in plan.values] for plan in plans]
    done: list[list[Tensor]] = [[] for _ in plans]
    for exponent in dict.fromkeys(exponents):
        members = [i for i, one in enumerate(exponents) if one == exponent]
        stacks = [(i, stack) for i in members for stack in plans[i].stacks]
        results = by_size([stack for _, stack in stacks], _function(exponent, root)) if stacks else []
        for (i, _), (value, ok) in zip(stacks, results, strict=True):
            done[i].append(value)
            oks[i].append(ok.all())
    answers = torch.stack([torch.stack(ok).all() for ok in oks]).tolist() if oks else []
    return [plan.join(d) if ok else None for plan, d, ok in zip(plans, done, answers, strict=True)]


def _function(exponent: float, root: Root) -> Callable[[Tensor], Checked]:
    """A ↦ A^exponent on stacks."""
    if exponent == -1:
        return safe_inverse
    p = round(-1 / exponent) if exponent < 0 else 0
    if p < 1 or abs(p * exponent + 1) > 1e-9:
        raise ValueError(f"the power {exponent:g} of a matrix is not offered: use −1/p with a whole number p")
    return lambda stack: root(stack, p)


def reason(operator: Operator) -> str:
    """Why a power of the operator fails, or nearly does: the worst of its matrices, in words."""
    found = []
    plan = parts(operator, -1.0)
    matrices = [matrix for stack in plan.stacks for matrix in double(stack)]
    for values in [*(double(v).flatten() for v in plan.values), *matrices]:
        if not bool(values.isfinite().all()):
            return f"{int((~values.isfinite()).sum())} numbers of a factor of size {len(values)} are not finite"
        try:
            spectrum = safe_eigvalsh(values) if values.dim() == 2 else values
        except NumericalError as error:
            return error.found
        low, high = spectrum.min().item(), spectrum.max().item()
        found.append((low / high if high > 0 else -torch.inf, len(values), low, high))
    ratio, size, low, high = min(found)
    if ratio <= 0:
        return f"a factor of size {size} has eigenvalues from {low:.3g} to {high:.3g}, not all positive"
    return f"a factor of size {size} has condition number {1 / ratio:.3g}"

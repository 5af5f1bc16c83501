"""FOP's learned matrices in a curvlab file: tensors `curvlab.fop.<parameter>` `[d, k]` beside the weights.

The metadata key `curvlab.fop` says what they mean, as JSON {parameter: {"form": "full" or "low-rank", "norm": bool}}:
P = c·MMᵀ or c·(I + MMᵀ), with c = √d/‖·‖ where "norm" is true, else 1.

No weight's name begins with `curvlab.`, so that a reader tells them apart by their names alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from curvlab.formats.lazy_tensors import LazyTensors

if TYPE_CHECKING:
    from torch import Tensor

    from curvlab.operators.operator import Operator
    from curvlab.optim.fop.learned_matrix import LearnedMatrix

KEY = "curvlab.fop"
PREFIX = "curvlab.fop."


@dataclass(frozen=True)
class FopMatrices:
    """Learned matrices by parameter name.

    Attributes:
        factors: parameter -> M `[d, k]`; those of a file are read when asked for.
        forms: parameter -> whether P is "full" or "low-rank".
        normalized: parameter -> whether P is scaled to the norm of the identity.
    """

    factors: Mapping[str, Tensor]
    forms: Mapping[str, str]
    normalized: Mapping[str, bool]

    def form(self, parameter: str) -> LearnedMatrix:
        """What M means."""
        from curvlab.optim.fop.learned_matrix import LearnedMatrix

        rank = None if self.forms[parameter] == "full" else self.factors[parameter].shape[1]
        return LearnedMatrix(rank, normalized=self.normalized[parameter])

    def operator(self, parameter: str) -> Operator:
        """P, for `spectrum`, `eigenvalues` and `matrix`."""
        return self.form(parameter).operator(self.factors[parameter])

    def renamed(self, names: Mapping[str, str]) -> FopMatrices:
        """The same under other parameter names, `{old: new}`; one that is not there keeps its name."""
        plain = {name: names.get(name, name) for name in self.factors}
        factors = LazyTensors({new: partial(self.factors.__getitem__, old) for old, new in plain.items()})
        forms = {new: self.forms[old] for old, new in plain.items()}
        return FopMatrices(factors, forms, {new: self.normalized[old] for old, new in plain.items()})

    def tensors(self) -> dict[str, Tensor]:
        """What to store beside the weights."""
        import torch

        return {
            PREFIX + name: m.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, m in self.factors.items()
        }

    def metadata(self) -> dict[str, str]:
        """What to store in the metadata; nothing when there are no matrices."""
        described = {name: {"form": self.forms[name], "norm": self.normalized[name]} for name in self.factors}
        return {KEY: json.dumps(described, sort_keys=True)} if described else {}


def fop_matrices(factors: Mapping[str, Tensor], forms: Mapping[str, LearnedMatrix]) -> FopMatrices:
    """The matrices of an optimizer: `fop_matrices(optimizer.matrices, optimizer.forms)`."""
    return FopMatrices(
        factors,
        {name: "full" if form.rank is None else "low-rank" for name, form in forms.items()},
        {name: form.normalized for name, form in forms.items()},
    )


def misfit(weight: Sequence[int] | None, factor: Sequence[int], dtype: str, form: str) -> str | None:
    """Why M of this shape, element type and form is none for a parameter of shape `weight`; None where it is one."""
    from curvlab.optim.fop.learned_matrix import dimension

    size = None if weight is None else dimension(weight)
    if not size or len(factor) != 2 or factor[0] != size:
        return f"its shape {tuple(factor)} does not fit the parameter"
    if not (size if form == "full" else 1) <= factor[1] <= size or "float" not in dtype:
        return f"{tuple(factor)} of {dtype} is not what it is said to be"
    return None

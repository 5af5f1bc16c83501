"""A group of tensors that share everything but the last part of their names, and the scale on which rules are sure.

Confidence is a statement about alternatives, the same for every rule:

| value | says |
|---|---|
| 0.99 `UNIQUE` | of torch's layers only this one stores tensors of these names and shapes |
| 0.9 `AGREED` | names and shapes agree; another layer could store the same, but rarely does |
| 0.7 `SHAPE` | the shapes fit and the names say nothing |
| 0.5 `SPLIT` | two readings fit equally well; the evidence names both |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from curvlab.formats.checkpoint import InferredLayer
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.names import words

UNIQUE, AGREED, SHAPE, SPLIT = 0.99, 0.9, 0.7, 0.5


@dataclass
class Group:
    """The tensors of one would-be layer: role -> what the file says of it, and role -> full name in the tensors.

    Rules take roles out by naming them in a layer; what no rule takes stands alone in the end.
    """

    name: str
    specs: dict[str, TensorSpec] = field(default_factory=dict)
    full_names: dict[str, str] = field(default_factory=dict)
    evidence: dict[str, str] = field(default_factory=dict)  # role -> how a folded tensor came about
    tables: set[str] = field(default_factory=set)  # roles that the file says are embedding tables

    def shape(self, role: str) -> tuple[int, ...] | None:
        """Shape of a floating-point tensor of this role; None when there is none."""
        spec = self.specs.get(role)
        return spec.shape if spec is not None and spec.is_float else None

    def says(self, hints: Iterable[str]) -> bool:
        """One of the words of the group's own name is among the hints."""
        return not words(self.name).isdisjoint(hints)

    def layer(
        self, kind: str, roles: Mapping[str, str], shape: tuple[int, ...], sure: float, why: str
    ) -> InferredLayer:
        """A layer of this group.

        Args:
            kind: torch's class.
            roles: role in the layer -> role in the group; those the group does not have are left out.
            shape: of the main weight.
            sure: one of the values above.
            why: the evidence.
        """
        present = {role: stored for role, stored in roles.items() if stored in self.specs}
        folded = [self.evidence[stored] for stored in present.values() if stored in self.evidence]
        return InferredLayer(
            name=self.name or self.full_names[next(iter(present.values()))],
            kind=kind,
            tensors={role: self.full_names[stored] for role, stored in present.items()},
            shape=shape,
            confidence=sure,
            evidence="; ".join([why, *folded]),
        )

    def without(self, layer: InferredLayer) -> Group:
        """The group without the tensors of `layer`."""
        used = set(layer.tensors.values())
        rest = {role: spec for role, spec in self.specs.items() if self.full_names[role] not in used}
        return Group(self.name, rest, self.full_names, self.evidence, self.tables)


Rule = Callable[[Group], InferredLayer | None]


def same(*roles: str) -> dict[str, str]:
    """Roles that the layer and the group call alike."""
    return {role: role for role in roles}

"""Target: a comparison over a line of metrics.jsonl, such as `test.accuracy>0.95 and train.loss<0.1`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curvlab.document.paths import NoNumber
from curvlab.errors import CommandError
from curvlab.gates import Gate, parse


@dataclass(frozen=True)
class Target:
    """A parsed target; or (`kind` "gate") what is asked of a summary in the same language."""

    gate: Gate
    kind: str = "target"

    def met(self, entry: Mapping[str, Any]) -> bool:
        """Whether it holds for an evaluation. A number that is null there (a loss beyond floats) meets nothing."""
        try:
            return all(math.isfinite(path.number(_document(entry), None)) for path in self.gate.paths.values()) and (
                self.gate.check(_document(entry)).holds
            )
        except (NoNumber, CommandError):
            return False

    def missing(self, shape: Mapping[str, Any]) -> list[str]:
        """Sentences about the paths that lead to no number in entries of this shape (see `entry_shape`)."""
        document, found, what = _document(shape), [], f"the {self.kind} '{self.gate.text}'"
        for path in self.gate.paths.values():
            if path.quantifier:
                found.append(f"{what} asks for '{path.text}': a training run has no layers")
                continue
            try:
                path.number(document, None)
            except NoNumber as error:
                found.append(f"{what} cannot be decided: {error}")
        return found


def parse_target(text: str, kind: str = "target") -> Target:
    """The target that `text` writes, in the language of `curvlab.gates`.

    Raises:
        CommandError: it is not an expression of that language.
    """
    try:
        return Target(parse(text), kind)
    except CommandError as error:
        do = "write a comparison such as 'test.accuracy>0.95' or 'train.loss<0.3'"
        raise CommandError(f"the {kind} '{text}' is not an expression", error.why, do) from error


def _document(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "layers": []}

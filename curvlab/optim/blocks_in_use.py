"""BlocksInUse: the blocks that an optimizer preconditions, found once the model has run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.errors import CurvlabError

Trainable = dict[str, Tensor]
"""The parameters that are not frozen, by name."""


class BlocksInUse:
    """The blocks whose parameters are all trainable; they are found again where parameters were frozen or freed.

    Args:
        trainable: the parameters that are not frozen now.
        find: blocks of these parameters, as far as the model's layers are known.

    Attributes:
        blocks: found by the last call of `current`; none after a load.
    """

    def __init__(
        self, trainable: Callable[[], Trainable], find: Callable[[Trainable], Iterable[PreconditionerBlock]]
    ) -> None:
        self._trainable, self._find = trainable, find
        self.blocks: list[PreconditionerBlock] = []
        self._found_for: frozenset[str] = frozenset()
        self._saved: frozenset[str] = frozenset()

    @property
    def stale(self) -> bool:
        """Whether blocks are to be found: after construction or a load, or since parameters were frozen or freed."""
        return self._found_for != frozenset(self._trainable())

    def current(self) -> list[PreconditionerBlock]:
        """The blocks, found where that is to be done; a new list then."""
        if self.stale:
            trainable = self._trainable()
            found = self._find(trainable)
            self.blocks = [one for one in found if all(name in trainable for name in one.parameters.values())]
            self._found_for = frozenset(trainable)
        return self.blocks

    def require_found(self, optimizer: str) -> None:
        """Raise where a state was loaded, and the model, whose layers its operators belong to, has not run since."""
        if not self._found_for:
            raise CurvlabError(
                f"{optimizer} has loaded a state and not seen the model run since",
                "layers are found then",
                "take a step",
            )

    def parameters(self) -> set[str]:
        """Names of the parameters in blocks; after a load, as the saved run found them."""
        return {name for one in self.blocks for name in one.parameters.values()} if self.blocks else set(self._saved)

    def loaded(self, parameters: Iterable[str]) -> None:
        """A state was loaded: blocks are found anew when the model runs, and these are the parameters in them."""
        self.blocks, self._found_for, self._saved = [], frozenset(), frozenset(parameters)

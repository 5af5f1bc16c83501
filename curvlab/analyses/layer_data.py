"""What an analysis is given: the weights of one layer and the statistics of the data that it asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from curvlab.analyses.layer_rows import LayerRow
from curvlab.analyses.mean_gradient import MeanGradient
from curvlab.analyses.settings import Settings
from curvlab.curvatures.data_average import BlockAverage
from curvlab.formats.checkpoint import Checkpoint
from curvlab.layers.layer import Layer


@dataclass(frozen=True)
class LayerStatistics:
    """Averages over some examples, of one layer.

    Attributes:
        examples: N.
        rows: N·T, rows of features that the layer was given.
        averages: name of a recipe -> what it has averaged of the layer.
    """

    examples: int
    rows: int
    averages: Mapping[str, tuple[BlockAverage, ...]] = field(default_factory=dict)

    def average(self, curvature: str, block: str | None = None) -> BlockAverage | None:
        """What a recipe has averaged of the block of that name, or of the layer's first block.

        None where it was not asked for, did not fit the memory, or no gradient reached the block.
        """
        found = self.averages.get(curvature, ())
        return next((one for one in found if block is None or one.block.name == block), None)


@dataclass(frozen=True)
class LayerData:
    """One layer as an analysis sees it.

    Attributes:
        row: its name, kind and parameters.
        tensors: every tensor of the model by name; reading one may mean reading a file.
        shapes: of all of them, known without reading.
        settings: of the whole analysis.
        whole: statistics over all the data; None without data, or where nothing of the layer was recorded.
        halves: over every second example each, for standard errors; empty where there are none.
    """

    row: LayerRow
    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    settings: Settings
    whole: LayerStatistics | None = None
    halves: tuple[LayerStatistics, ...] = ()

    @property
    def layer(self) -> Layer:
        """The adapter of a layer that ran, or what a factor file says of it."""
        if self.row.layer is not None:
            return self.row.layer
        assert self.row.block is not None
        return self.row.block.layer

    def weight(self) -> tuple[Tensor, bool]:
        """The weight as a matrix of blocks along its first axis, and whether it is stored (in, out, …)."""
        stored, transposed = self.row.stored(self.tensors), self.row.transposed
        if self.row.layer is None or not transposed:
            return stored, transposed
        # Stored in an order that only the layer knows.
        return self.row.matrix(self.tensors), False


@dataclass(frozen=True)
class ModelData:
    """The whole model as an analysis sees it.

    Attributes:
        checkpoint: what was loaded.
        rows: the rows of the report, in the model's order.
        shapes: of every parameter.
        settings: of the whole analysis.
        gradient: the mean gradients that were asked for; None without data.
    """

    checkpoint: Checkpoint
    rows: Sequence[LayerRow]
    shapes: Mapping[str, tuple[int, ...]]
    settings: Settings
    gradient: MeanGradient | None = None

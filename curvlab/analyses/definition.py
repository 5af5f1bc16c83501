"""AnalysisDefinition: everything that curvlab must know of one analysis, in one class of one file.

The command line, `curvlab list analyses`, the table, sorting, JSON, CSV, gates, pictures and `--dry-run` follow from
it: none of them knows an analysis by its name. `curvlab/analyses/moments.py` is an example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from curvlab.analyses.needs import Needs
from curvlab.analyses.question import Question
from curvlab.analyses.ranking import Rankings
from curvlab.document.table import Quantity

if TYPE_CHECKING:
    from curvlab.analyses.analysis_plan import AnalysisPlan
    from curvlab.analyses.estimate import BlockEstimate
    from curvlab.analyses.layer_data import LayerData, ModelData
    from curvlab.analyses.results import Analysis
    from curvlab.analyses.settings import Settings
    from curvlab.document.figure import Figure
    from curvlab.errors import CurvlabError
    from curvlab.formats.checkpoint import Checkpoint

OF_THE_DATA = ("dtype", "samples", "batch_size")
"""Fields of `Settings` about the pass over the data."""

DataUse = Literal["needed", "used", "unused"]
"""Whether an analysis needs data and a network that runs, says more with them, or ignores them."""


class AnalysisDefinition(ABC):
    """The parts that all analyses have. A subclass sets the attributes and overrides what it needs.

    Attributes:
        name: how the command line, the JSON, the CSV and gates call it.
        help: one sentence for `curvlab list analyses`.
        result: the frozen dataclass of its results; its fields are the keys of the JSON and the paths of gates.
        data: what it asks of the data.
        by_default: whether it is done when no analyses are named; without that it is done only when asked for.
        asked_by: a field of `Settings` that asks for it too where it is not None.
        title: above its columns.
        quantities: its columns, each a function of one result.
        settings_shown: label -> field of `Settings` that a reader must know to read the results.
        csv_omits: fields of the result that the CSV leaves out.
        reads: fields of `Settings` that have an effect on it, those of the data pass aside.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    result: ClassVar[type]
    data: ClassVar[DataUse] = "needed"
    by_default: ClassVar[bool] = False
    asked_by: ClassVar[str | None] = None
    title: ClassVar[str]
    quantities: ClassVar[tuple[Quantity, ...]] = ()
    settings_shown: ClassVar[Mapping[str, str]] = {}
    csv_omits: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[tuple[str, ...]] = ()

    def settings_read(self) -> tuple[str, ...]:
        """Fields of `Settings` that have an effect on it and not on all analyses."""
        return self.reads if self.data == "unused" else (*self.reads, *OF_THE_DATA)

    def needs(self, settings: Settings, checkpoint: Checkpoint) -> Needs:
        """The statistics of the data that it reads."""
        return Needs()

    def missing(self, checkpoint: Checkpoint) -> CurvlabError | None:
        """Why it cannot be done on this model, whatever the options; None if it can."""
        return None

    def estimate(self, plan: AnalysisPlan) -> Iterable[BlockEstimate]:
        """What it holds and computes beside the statistics of the data, one block after another."""
        return ()

    def figures(self, analysis: Analysis, checkpoint: Checkpoint | None) -> Iterable[Figure]:
        """Pictures of its results; one with the name of another analysis's replaces that."""
        return ()

    def finish(self, analysis: Analysis, settings: Settings) -> None:  # noqa: B027 - most have nothing to do here
        """Called when all results are there: for files of its own that the settings ask for."""


class LayerAnalysis(AnalysisDefinition):
    """One result per layer, found as `analysis["fc1"].NAME`, `layers[i].NAME` in the JSON, and `fc1.NAME.…` in gates.

    Attributes:
        rankings: key of `--sort` -> rank of a result. Where several analyses have a key, the last that has a rank for a
            layer decides: it is the more specific one.
        questions: the numbers that the summary of a model of many layers is about.
    """

    rankings: ClassVar[Rankings] = {}
    questions: ClassVar[tuple[Question, ...]] = ()

    def begin(self, layers: Sequence[LayerData]) -> Callable[[LayerData], Any]:
        """`run`, or what does the same for the layers in this order, where several are cheaper together."""
        return self.run

    @abstractmethod
    def run(self, layer: LayerData) -> Any:
        """The result for one layer, or None where there is none.

        Raises:
            NumericalError: numbers that are not finite; they become a line of the coverage report.
        """

    def on_data(self, result: Any) -> bool:
        """Whether the result says something of the data: its layer then counts as analysed."""
        return self.data == "needed"

    def notes(self, results: Mapping[str, Any]) -> Iterable[str]:
        """Sentences about the results of all layers, by the layers' names, for the notes of the whole analysis."""
        return ()


class ModelAnalysis(AnalysisDefinition):
    """Rows of its own (matrices, eigenvalues), found as `analysis.NAME`, `NAME[i]` in the JSON, and `any.NAME.…` in
    gates. Each row is a frozen result with the `name` of the layer it belongs to."""

    @abstractmethod
    def run(self, model: ModelData) -> tuple[Any, ...]:
        """The rows, in the order of the model's layers."""

    def remarks(self, rows: Sequence[Any]) -> Iterable[str]:
        """Sentences about the rows that a reader of the table needs."""
        return ()

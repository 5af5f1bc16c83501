"""Statistics of the data from a factor file in place of a pass over data: `analyze --factors-from`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curvlab.analyses.definition import AnalysisDefinition
from curvlab.analyses.layer_data import LayerStatistics
from curvlab.analyses.layer_rows import LayerRow
from curvlab.analyses.registry import definitions
from curvlab.analyses.settings import Settings
from curvlab.capture.survey import LayerBlock
from curvlab.curvatures.blocks import matrix_block
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.data_average import BlockAverage
from curvlab.curvatures.gradient_moments import GradientMoments
from curvlab.curvatures.input_moments import InputMoments
from curvlab.curvatures.reduced_factors import ReducedFactors
from curvlab.errors import CheckpointError, CurvlabError
from curvlab.factor_files.file import load_factors
from curvlab.factor_files.layer_factors import Factors, LayerFactors
from curvlab.factor_files.layer_shape import StoredLayer
from curvlab.factor_files.statistics import holds, state
from curvlab.formats.checkpoint import Checkpoint
from curvlab.quoting import quoted

NOTHING = "the factor file has nothing of it"
MODEL = "give the model that they were made of, or make them again with --factors"


class StoredAverages(Mapping[str, tuple[BlockAverage, ...]]):
    """Name of a recipe -> its averages of one layer, read when they are asked for and not kept.

    Args:
        factors: of the layer.
        recipes: whose averages the file holds.
    """

    def __init__(self, factors: LayerFactors, recipes: Mapping[str, Curvature]) -> None:
        self._factors = factors
        self._recipes = {name: one for name, one in recipes.items() if holds(name, factors.tensors)}

    def __getitem__(self, name: str) -> tuple[BlockAverage, ...]:
        return (BlockAverage(self._recipes[name], matrix_block(_block(self._factors)), self._state(name)),)

    def __iter__(self) -> Iterator[str]:
        return iter(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes)

    def _state(self, name: str) -> dict[str, Any]:
        return state(name, self._factors.tensors, self._factors.count, self._factors.shape.widths)


@dataclass(frozen=True)
class StoredStatistics:
    """What a factor file says of a model.

    Attributes:
        path: of the file.
        factors: its contents.
    """

    path: str
    factors: Factors

    @property
    def recipes(self) -> Mapping[str, Curvature]:
        """The recipes whose averages it holds."""
        origin = self.factors.origin
        gradients: Curvature = GradientMoments(origin.fisher_type, origin.mc_samples, keep_rows=True)
        if origin.kfac_approx == "reduce":
            gradients = ReducedFactors(origin.fisher_type, origin.mc_samples)
        return {one.name: one for one in (InputMoments(keep_rows=True), gradients)}

    def layer(self, name: str) -> LayerStatistics:
        """The averages of one layer over all examples; halves are not stored."""
        factors = self.factors[name]
        return LayerStatistics(self.factors.origin.examples, factors.count, StoredAverages(factors, self.recipes))

    def settings(self, settings: Settings, chosen: Sequence[AnalysisDefinition]) -> Settings:
        """The settings that the statistics were made with, as far as one of the analyses reads them."""
        read = {name for one in chosen for name in one.reads}
        made_with = {name: value for name, value in self._made_with().items() if name in read}
        return replace(settings, seed=self.factors.origin.seed, **made_with)

    def chosen(self, settings: Settings, checkpoint: Checkpoint) -> tuple[AnalysisDefinition, ...]:
        """The analyses that are asked for, or by default all that the file has the statistics for.

        Raises:
            CurvlabError: it has not those of one that was asked for.
        """
        asked = settings.analyses
        made_with = replace(settings, analyses=None, **self._made_with())
        found = []
        for one in definitions():
            if one.name not in asked if asked is not None else not one.by_default:
                continue
            lacking = self._lacking(one, made_with, checkpoint)
            if lacking is None:
                found.append(one)
            elif asked is not None:
                raise CurvlabError(f"'{one.name}' cannot be continued from {quoted(self.path)}", lacking, "give --data")
        return tuple(found)

    def rows(self, rows: Sequence[LayerRow], shapes: Mapping[str, tuple[int, ...]]) -> list[LayerRow]:
        """The rows of a report, with the blocks that the file has statistics of."""
        by_name = {row.name: place for place, row in enumerate(rows)}
        by_weight = {row.weight: place for place, row in enumerate(rows)}
        found: list[LayerRow] = [replace(row, reason=row.reason or NOTHING) for row in rows]
        taken: set[int] = set()
        known = {parameter for factors in self.factors.values() for parameter in factors.parameters.values()}
        for name, factors in self.factors.items():
            block, weight = _block(factors), next(iter(factors.parameters.values()))
            place = by_name.get(name, by_weight.get(weight))
            if place is None or place in taken:  # a second use of a weight
                found.append(_row(factors, block))
                continue
            taken.add(place)
            if set(rows[place].tensors) == set(factors.parameters.values()):
                found[place] = replace(rows[place], name=name, block=block, reason=None)
                continue
            # In the network the layer is used otherwise than its module says: without its bias, say.
            found[place] = _row(factors, block)
            rest = [tensor for tensor in rows[place].tensors if tensor not in known]
            kind = f"{rows[place].kind} parameter"
            found += [LayerRow(tensor, kind, tensor, (tensor,), reason=NOTHING) for tensor in rest]
        order = {name: place for place, name in enumerate(shapes)}
        return sorted(found, key=lambda row: order.get(row.tensors[0], 0))

    def _made_with(self) -> dict[str, Any]:
        origin = self.factors.origin
        drawn = {"mc_samples": origin.mc_samples} if origin.fisher_type == "mc" else {}
        return {"fisher_type": origin.fisher_type, "kfac_approx": origin.kfac_approx, **drawn}

    def _lacking(self, one: AnalysisDefinition, settings: Settings, checkpoint: Checkpoint) -> str | None:
        """Why an analysis cannot be done; None where it can."""
        if (refused := one.missing(checkpoint)) is not None:
            return str(refused)
        if one.data != "needed":  # it says more with statistics, and does without
            return None
        needs = one.needs(settings, checkpoint)
        missing = [curvature.name for curvature in needs.curvatures if curvature.name not in self.recipes]
        if needs.mean_gradient or not needs.curvatures:
            missing.append("gradients")
        return f"factor files do not hold {missing[0]}" if missing else None


def open_stored(path: str, checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> StoredStatistics:
    """A factor file, once it is known to be of this model.

    Raises:
        CheckpointError: it is of another one.
    """
    factors = load_factors(path)
    theirs, ours = factors.origin.sha256, checkpoint.sha256
    if theirs is not None and ours is not None and theirs != ours:
        found = f"the factors in {quoted(path)} are of another model file"
        raise CheckpointError(found, f"its sha256 is {quoted(theirs[:12])}…, that of the model {ours[:12]}…", MODEL)
    for name, factors_of_layer in factors.items():
        shape = factors_of_layer.shape
        for role, parameter in shape.parameters.items():
            known = shapes.get(checkpoint.aliases.get(parameter, parameter))
            if known is None or tuple(known) != shape.shapes[role]:
                has = f"the model has {'no such parameter' if known is None else f'one of shape {tuple(known)}'}"
                of = f"{quoted(parameter)} of shape {shape.shapes[role]} in the layer {quoted(name)}"
                raise CheckpointError(f"the factors in {quoted(path)} do not fit the model", f"{of}: {has}", MODEL)
    return StoredStatistics(path, factors)


def _block(factors: LayerFactors) -> LayerBlock:
    shape = factors.shape
    positions = max(1, factors.count // factors.origin.examples)
    return LayerBlock(shape.name, StoredLayer(shape), dict(shape.parameters), [shape.name], positions)


def _row(factors: LayerFactors, block: LayerBlock) -> LayerRow:
    shape = factors.shape
    tensors = tuple(shape.parameters.values())
    return LayerRow(shape.name, shape.kind, tensors[0], tensors, not shape.by_rows, shape.groups, block=block)

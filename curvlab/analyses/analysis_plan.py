"""AnalysisPlan: what is decided before the pass over the data: analyses, network, data, likelihood, rows."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.analyses.batch_plan import AROUND, BATCH_SIZE, SMALL, batch_plan, probe
from curvlab.analyses.chosen_analyses import chosen_analyses, refuse_idle
from curvlab.analyses.data_pass import DataPass
from curvlab.analyses.definition import AnalysisDefinition
from curvlab.analyses.free_memory import SHARE, free_memory, held_memory
from curvlab.analyses.layer_rows import LayerRow, rows_of_file, rows_of_module
from curvlab.analyses.likelihood_choice import choose_likelihood, with_logits
from curvlab.analyses.loaded import Model, as_checkpoint
from curvlab.analyses.mean_gradient import MeanGradient
from curvlab.analyses.memory_plan import Budget, roomiest_plan
from curvlab.analyses.needs import Needs, together
from curvlab.analyses.rows_seen import RowsSeen
from curvlab.analyses.settings import Settings
from curvlab.analyses.source import Source, moved, open_source
from curvlab.analyses.stored_statistics import StoredStatistics, open_stored
from curvlab.capture.model_inputs import Inputs, batch_size, call_model, explained
from curvlab.capture.output import output_tensor
from curvlab.capture.survey import Survey, survey
from curvlab.data.load import names_text
from curvlab.data.preparation import Preparation
from curvlab.data.registry import names
from curvlab.device import pick_device
from curvlab.errors import CommandError, CurvlabError, DataError
from curvlab.formats.checkpoint import Checkpoint
from curvlab.likelihoods import Likelihood, likelihood

NO_NETWORK = "weights only: the file has no graph; --architecture package.module:callable gives the full profile"
NO_DATA = "weights only: --data gives feature moments and curvature factors too"


@dataclass
class AnalysisPlan:
    """What will be done.

    Attributes:
        checkpoint: the model.
        settings: how.
        device: where.
        chosen: the analyses, in the order of their columns.
        rows: of the report.
        notes: sentences for the user.
        data_pass: None where there is no network or no data, or nothing asks for any.
        stored: statistics from a file in place of a pass; None where there is no such file.
        left_out: layer -> why some statistic of it is missing.
    """

    checkpoint: Checkpoint
    settings: Settings
    device: torch.device
    chosen: tuple[AnalysisDefinition, ...]
    rows: list[LayerRow]
    notes: list[str]
    data_pass: DataPass | None = None
    stored: StoredStatistics | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every parameter, or of every tensor of a file without a network."""
        module = self.checkpoint.module
        if module is None:
            return self.checkpoint.shapes
        return {name: tuple(p.shape) for name, p in module.named_parameters()}

    def needs(self, one: AnalysisDefinition) -> Needs:
        """The statistics that one of the analyses reads."""
        return one.needs(self.settings, self.checkpoint)


def prepare(
    given: Model, data: Any, settings: Settings | None, options: dict[str, Any], precise: bool = False
) -> AnalysisPlan:
    """Decide everything; runs the network on two examples.

    Args:
        given: the model.
        data: or None.
        settings: how.
        options: that replace some of them.
        precise: whether the memory of an example is measured even where it can hardly matter.

    Raises:
        CurvlabError: an analysis was asked for that the inputs do not allow, or the network cannot run on the data.
    """
    settings = replace(settings or Settings(), **options)
    checkpoint = as_checkpoint(given, idle=data is None and settings.factors_from is None)
    if settings.factors_from is not None:
        return _continued(checkpoint, data, settings, settings.factors_from)
    notes, module = list(checkpoint.notes), checkpoint.module
    if module is None and data is not None:
        notes.append("the data was not used: there is no network to run it through")
    given_data = data is not None
    if data is None and checkpoint.data in names():
        data = checkpoint.data  # a file may name a dataset of curvlab's own; a path in a file is not followed
    chosen = chosen_analyses(settings, checkpoint, data=data is not None)
    refuse_idle(settings, chosen, data=data is not None, given=given_data)
    plan = AnalysisPlan(checkpoint, settings, pick_device(settings.device), chosen, [], notes)
    looks_at_data = any(one.data != "unused" for one in chosen)
    if module is None:
        plan.rows = _named(rows_of_file(checkpoint), settings)
        plan.notes = _with_advice(notes, ("--architecture", "--trust", "weights only: "), NO_NETWORK)
    elif data is None or not looks_at_data or next(module.parameters(), None) is None:
        plan.rows = _named(rows_of_module(module, None), settings)
        plan.notes = _with_advice(notes, ("--data",), NO_DATA) if data is None and looks_at_data else notes
    else:
        _with_data(plan, module, data, precise)
    return plan


def _continued(checkpoint: Checkpoint, data: Any, settings: Settings, path: str) -> AnalysisPlan:
    """A plan whose statistics come from a factor file."""
    if data is not None:
        raise CommandError("factors_from is given", "its statistics take the place of data", "leave one of them out")
    refuse_idle(settings, (), data=False, given=False)
    plan = AnalysisPlan(checkpoint, settings, pick_device(settings.device), (), [], list(checkpoint.notes))
    stored = plan.stored = open_stored(path, checkpoint, plan.shapes)
    plan.chosen = stored.chosen(settings, checkpoint)
    plan.settings = stored.settings(settings, plan.chosen)
    module, origin = checkpoint.module, stored.factors.origin
    rows = rows_of_file(checkpoint) if module is None else rows_of_module(module, None)
    plan.rows = _named(stored.rows(rows, plan.shapes), settings)
    plan.notes.append(f"statistics of {origin.examples:,} examples from the factor file; it has no standard errors")
    return plan


def _with_data(plan: AnalysisPlan, module: nn.Module, data: Any, precise: bool) -> None:
    """Add the pass over the data to the plan."""
    settings, device = plan.settings, plan.device
    if settings.sequence_length is not None and not names_text(data):
        raise CommandError("--sequence-length is about text", "the data is none", "leave it out")
    dtype = torch.float64 if settings.dtype == "float64" else torch.float32
    module = copy.deepcopy(module).to(device, dtype).eval()
    source = open_source(
        data,
        module,
        samples=settings.samples,
        seed=settings.seed,
        max_memory=settings.max_memory,
        loss=settings.loss,
        preparation=Preparation(module, plan.checkpoint.folders, settings.sequence_length),
    )
    first, _ = moved((source.first, None), device, dtype)
    z, outputs = _try(module, first, source)
    chosen, guess = _likelihood(plan, z, source, first)
    taken_off = with_logits(module, chosen, z)
    if taken_off is not None:
        z, outputs = _try(module, first, source)
        chosen, guess = _likelihood(plan, z, source, first)
    found = survey(module, first, settings.layers)
    plan.data_pass = _planned(plan, module, source, found, z, chosen, outputs, precise)
    plan.left_out = dict(plan.data_pass.plan.left_out)
    plan.rows = _named(rows_of_module(module, found), settings)
    plan.notes = [*plan.notes, *source.notes, *(said for said in (guess, taken_off) if said)]


def _likelihood(plan: AnalysisPlan, z: Tensor, source: Source, first: Inputs) -> tuple[Likelihood, str | None]:
    """The likelihood and a sentence where it was guessed; where no analysis is about it, any will do in silence."""
    loss, recorded = plan.settings.loss, plan.checkpoint.likelihood
    if any("loss" in one.settings_read() for one in plan.chosen):
        return choose_likelihood(loss, recorded, z, source.targets, first, source.sequences)
    try:
        return choose_likelihood(loss, recorded, z, source.targets, first, source.sequences)[0], None
    except DataError:  # nothing tells
        return likelihood("mse"), None


def _with_advice(notes: list[str], said: tuple[str, ...], advice: str) -> list[str]:
    """The notes, with the one option that would give more, unless loading has `said` it already."""
    return notes if any(words in note for words in said for note in notes) else [*notes, advice]


def _named(rows: list[LayerRow], settings: Settings) -> list[LayerRow]:
    if not settings.layers:
        return rows
    chosen = [e for e in rows if any(fnmatch.fnmatchcase(e.name, glob) for glob in settings.layers)]
    if not chosen:
        names = ", ".join(e.name for e in rows[:8])
        raise CurvlabError(f"no layer is called {' or '.join(settings.layers)}", f"there are {names}, …")
    return chosen


def _try(module: nn.Module, first: Inputs, source: Source) -> tuple[Tensor, int]:
    """The output for a few examples, and the bytes of what modules return, per example."""
    held = 0

    def count(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal held
        if isinstance(output, Tensor):
            held += output.numel() * output.element_size()

    handles = [m.register_forward_hook(count) for m in module.modules() if next(m.children(), None) is None]
    data = f"{source.info['source']} (inputs of shape {tuple(source.info['input_shape'])})"
    try:
        with explained(data), torch.no_grad():
            z = output_tensor(call_model(module, first))
    finally:
        for handle in handles:
            handle.remove()
    return z, held // max(1, batch_size(first))


def _planned(
    plan: AnalysisPlan,
    module: nn.Module,
    source: Source,
    found: Survey,
    z: Tensor,
    chosen: Likelihood,
    outputs: int,
    precise: bool,
) -> DataPass:
    """The passes over the data within the memory that there is."""
    settings, device = plan.settings, plan.device
    needs = together(plan.needs(one) for one in plan.chosen)
    for one in needs.curvatures:
        one.fisher_type, one.mc_samples = settings.fisher_type, settings.mc_samples
    backward = settings.fisher_type != "forward-only" and any(not one.of_inputs for one in needs.curvatures)
    dtype = next(module.parameters()).dtype
    first, targets = moved((source.first, source.targets), device, dtype)
    # The first operation that is counted imports a good second's worth of torch; small networks go without.
    tried, per_example, usual = None, AROUND * outputs, settings.max_memory or free_memory(device)
    if precise or per_example * min(BATCH_SIZE, source.samples or BATCH_SIZE) > SMALL * usual:
        tried = probe(module, found, chosen, first, targets, backward)
        per_example = per_example if tried is None else tried.bytes
    held = held_memory(device)
    limit = settings.max_memory or held + int(SHARE * free_memory(device))
    budget = Budget(held, limit, settings.max_memory is not None, source.repeatable)
    batch = batch_plan(settings.batch_size, per_example, budget.room, source.samples, found, backward)
    halves = source.samples is None or source.samples > 1
    passes = settings.mc_samples if settings.fisher_type == "mc" else 1
    if settings.fisher_type == "type-2":
        passes = max(1, z[0].numel())  # a column for each output of an example
    seen = RowsSeen(source.samples, passes, dtype.itemsize, halves)
    memory = roomiest_plan(found, needs.curvatures, seen, batch, budget)
    gradient = None
    if needs.mean_gradient:
        gradient = MeanGradient(module, sorted(needs.mean_gradient), chosen, settings.seed)
    return DataPass(module, source, found, chosen, settings, memory, 0.0 if tried is None else tried.seconds, gradient)

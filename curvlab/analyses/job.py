"""Job: everything an analysis decides before the pass over the data: network, data, likelihood, blocks, plan, rows of
the report."""

from __future__ import annotations

import copy
import fnmatch
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from curvlab.analyses.entries import Entry, entries_of_file, entries_of_module
from curvlab.analyses.estimate import leave_out
from curvlab.analyses.likelihood_choice import choose_likelihood, with_logits
from curvlab.analyses.mean_gradient import MeanGradient
from curvlab.analyses.settings import NEEDED_BY, Settings, chosen
from curvlab.analyses.source import Source, moved, open_source
from curvlab.capture.output import output_tensor
from curvlab.capture.survey import Survey, survey
from curvlab.capture.tape import Inputs, batch_size, call_model, explained
from curvlab.data.registry import names
from curvlab.device import pick_device
from curvlab.errors import CommandError, CurvlabError
from curvlab.formats.checkpoint import Checkpoint
from curvlab.formats.load import load
from curvlab.likelihoods import Likelihood
from curvlab.statistics.plan import Plan

DATA_ANALYSES = ("moments", "kfac", "tnt")
"""Analyses that need a network that runs, and data."""

BATCH_SIZE = 256

NO_NETWORK = "weights only: the file has no graph; --architecture package.module:callable gives the full profile"
NO_DATA = "weights only: --data gives feature moments and curvature factors too"

Model = Checkpoint | nn.Module | str | Path


@dataclass
class Pass:
    """The pass over the data: a copy of the network in eval mode, and what is collected from it."""

    module: nn.Module
    source: Source
    found: Survey
    likelihood: Likelihood
    plan: Plan
    batch_size: int
    activations: int


@dataclass
class Job:
    """What will be done. `data_pass` is None where there is no network or no data: then it is weights only; `gradient`
    where FOP's matrices are not looked at on data."""

    checkpoint: Checkpoint
    settings: Settings
    device: torch.device
    entries: list[Entry]
    notes: list[str]
    data_pass: Pass | None = None
    gradient: MeanGradient | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def wants(self, analysis: str) -> bool:
        """Whether the analysis was asked for, by name or by asking for all."""
        return self.settings.analyses is None or analysis in self.settings.analyses


def prepare(given: Model, data: Any, settings: Settings | None, options: dict[str, Any]) -> Job:
    """Decide everything; runs the network on two examples.

    Raises:
        CurvlabError: an analysis was asked for that the inputs do not allow, or the network cannot run on the data.
    """
    settings = replace(settings or Settings(), **options)
    checkpoint = as_checkpoint(given)
    device = pick_device(settings.device)
    notes, module = list(checkpoint.notes), checkpoint.module
    if module is None and data is not None:
        notes.append("the data was not used: there is no network to run it through")
    given_data = data is not None
    if data is None and checkpoint.data in names():
        data = checkpoint.data  # a file may name a dataset of curvlab's own; a path in a file is nobody's to follow
    _refuse_impossible(checkpoint, settings, data=data is not None)
    _refuse_idle(settings, data=data is not None, given=given_data)
    if module is None:
        entries = _named(entries_of_file(checkpoint), settings)
        return Job(
            checkpoint,
            settings,
            device,
            entries,
            _with_advice(notes, ("--architecture", "--trust", "weights only: "), NO_NETWORK),
        )
    weights_only = settings.analyses is not None and not set(settings.analyses) & {*DATA_ANALYSES, "fop"}
    if data is None or weights_only or next(module.parameters(), None) is None:
        entries = _named(entries_of_module(module, None), settings)
        notes = _with_advice(notes, ("--data",), NO_DATA) if data is None and not weights_only else notes
        return Job(checkpoint, settings, device, entries, notes)
    dtype = torch.float64 if settings.dtype == "float64" else torch.float32
    module = copy.deepcopy(module).to(device, dtype).eval()
    source = open_source(data, module, samples=settings.samples, seed=settings.seed, max_memory=settings.max_memory)
    first, _ = moved((source.first, None), device, dtype)
    z, activations = _try(module, first, source)
    likelihood, guess = choose_likelihood(settings.loss, checkpoint.likelihood, z, source.targets, first)
    taken_off = with_logits(module, likelihood, z)
    if taken_off is not None:
        z, activations = _try(module, first, source)
        likelihood, guess = choose_likelihood(settings.loss, checkpoint.likelihood, z, source.targets, first)
    found = survey(module, first, settings.layers)
    plan, left_out = leave_out(found, _plan(settings, source), settings.max_memory)
    size = settings.batch_size or _batch_size(activations, settings.max_memory)
    gradient = None
    if checkpoint.fop is not None and (settings.analyses is None or "fop" in settings.analyses):
        gradient = MeanGradient(module, checkpoint.fop.factors, likelihood, settings.seed)
    return Job(
        checkpoint,
        settings,
        device,
        _named(entries_of_module(module, found), settings),
        [*notes, *source.notes, *(said for said in (guess, taken_off) if said)],
        Pass(module, source, found, likelihood, plan, size, activations),
        gradient,
        left_out,
    )


def as_checkpoint(given: Model) -> Checkpoint:
    """A checkpoint from a path, or from a network in memory."""
    if isinstance(given, Checkpoint):
        return given
    if isinstance(given, torch.jit.ScriptModule):
        raise CurvlabError("a TorchScript module was given", "it takes no hooks", "give the nn.Module it was made from")
    if isinstance(given, nn.Module):
        if any(is_lazy(p) for p in given.parameters()):
            raise CurvlabError("the model has lazy layers that have not run yet", "", "call it once on some inputs")
        tensors = {name: p.detach() for name, p in given.state_dict().items()}
        shapes = {name: tuple(t.shape) for name, t in tensors.items()}
        return Checkpoint(None, "module", tensors, shapes, (), given, type(given).__qualname__)
    return load(given)


def _with_advice(notes: list[str], said: tuple[str, ...], advice: str) -> list[str]:
    """The notes, with the one option that would give more, unless loading has `said` it already."""
    return notes if any(words in note for words in said for note in notes) else [*notes, advice]


def _named(entries: list[Entry], settings: Settings) -> list[Entry]:
    if not settings.layers:
        return entries
    chosen = [e for e in entries if any(fnmatch.fnmatchcase(e.name, glob) for glob in settings.layers)]
    if not chosen:
        names = ", ".join(e.name for e in entries[:8])
        raise CurvlabError(f"no layer is called {' or '.join(settings.layers)}", f"there are {names}, …")
    return chosen


def _plan(settings: Settings, source: Source) -> Plan:
    def wanted(name: str) -> bool:
        return settings.analyses is None or name in settings.analyses

    gradients = settings.fisher_type != "forward-only"
    return Plan(
        features=wanted("moments") or (wanted("kfac") and settings.kfac_approx == "expand"),
        output_gradients=wanted("kfac"),
        kfac_approx=settings.kfac_approx,
        tensors=settings.statistic if wanted("tnt") and gradients else None,
        fisher_type=settings.fisher_type,
        mc_samples=settings.mc_samples,
        dtype=torch.float64,  # ranks, and condition numbers beyond 1e7, are not in a float32 product
        halves=source.samples is None or source.samples > 1,
        keep_rows=True,
    )


def _try(module: nn.Module, first: Inputs, source: Source) -> tuple[Tensor, int]:
    """The output for a few examples, and the bytes of activations per example."""
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


def _batch_size(activations: int, max_memory: int | None) -> int:
    if max_memory is None:
        return BATCH_SIZE
    return max(1, min(BATCH_SIZE, max_memory // (8 * max(1, activations))))


def _refuse_idle(settings: Settings, *, data: bool, given: bool) -> None:
    """Raise where something was chosen that has no effect.

    Args:
        settings: what was chosen.
        data: whether there is data.
        given: whether it was given, and not recorded by the file.
    """
    about_data = [name for name in chosen(vars(settings)) if name in NEEDED_BY]
    if about_data and not data:
        found = f"{about_data[0]} is about the pass over the data"
        raise CommandError(found, "no data was given and the file records none", "give --data, or leave it out")
    if given and settings.analyses == ("weights",):
        raise CommandError(
            "data is given", "analyses names the weights alone, which need none", "leave one of them out"
        )


def _refuse_impossible(checkpoint: Checkpoint, settings: Settings, *, data: bool) -> None:
    asked = [name for name in settings.analyses or () if name in DATA_ANALYSES]
    if asked and checkpoint.module is None:
        why = next((note for note in checkpoint.notes if "--trust" in note), "the file holds weights only")
        do = "" if "--trust" in why else "give --architecture"
        raise CurvlabError(f"'{asked[0]}' needs a network that runs", why, do)
    if asked and not data:
        raise CurvlabError(f"'{asked[0]}' needs data", "none was given and the file records none", "give --data")
    if "fop" in (settings.analyses or ()) and checkpoint.fop is None:
        raise CurvlabError(
            "'fop' needs the matrices that FOP has learned",
            "the model holds none",
            "give a file that 'curvlab train --optimizer fop' wrote",
        )

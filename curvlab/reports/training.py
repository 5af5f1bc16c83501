"""What a training run came to: facts, the last evaluation, times, and how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from curvlab.data.load import is_name
from curvlab.document.figure import Figure
from curvlab.document.json import plain
from curvlab.document.numbers import ABSENT, count, short, size
from curvlab.document.section import Document, Note, Section
from curvlab.document.table import plain_table
from curvlab.training.schedule import parse_schedule

if TYPE_CHECKING:
    from curvlab.training.result import TrainingResult

RETRY = {"lr": "below", "damping": "above"}
"""Where the settings of the next try are, after a run that diverged."""
_STATUS = {
    "finished": "finished",
    "target-met": "target met",
    "diverged": "diverged",
    "interrupted": "interrupted",
    "out-of-time": "out of time",
}


def training_document(result: TrainingResult, figures: Sequence[Figure] = ()) -> Document:
    """What was trained, how well, how long it took, and how to go on."""
    train, test = result.train or {}, result.test or {}
    columns = [
        ("train", [_number(value) for value in train.values()]),
        ("test", [_number(test[name]) for name in train]),
    ]
    heading = f"step {result.evaluated}" if result.evaluated is not None else ""
    table = plain_table([name.replace("_", " ") for name in train], columns, heading)
    sections = [
        Section(_labelled(_facts(result))),
        *([Section((table,))] if train else []),
        Section(_labelled(_closing(result))),
        Section(tuple(figures)),
    ]
    title = f"{result.optimizer} on {result.problem['name']}"
    return Document(title, tuple(sections), result.to_dict)


def plan_document(plan: Mapping[str, Any]) -> Document:
    """The sizes of a run that was not begun."""
    settings = _settings(plan["optimizer_settings"])
    rows = (
        ("problem", plan["problem"]),
        ("optimizer", f"{plan['optimizer']} ({settings})"),
        ("parameters", f"{count(plan['parameters'])} ({size(plan['model_bytes'])})"),
        ("examples", f"{count(plan['train_examples'])} to train on, {count(plan['test_examples'])} held out"),
        ("memory of the data", size(plan["data_bytes"])),
        (
            "steps",
            f"{count(plan['steps'])}, {count(plan['steps_per_epoch'])} an epoch of batches of {plan['batch_size']}",
        ),
        ("folder", plan["folder"]),
    )
    title = "Plan: nothing was computed"
    return Document(title, (Section(_labelled(rows), title),), partial(plain, plan))


def _labelled(lines: Iterable[tuple[str, Any]]) -> tuple[Note, ...]:
    return tuple(Note(str(text), label=label) for label, text in lines)


def _facts(result: TrainingResult) -> Iterator[tuple[str, str]]:
    problem, settings = result.problem, result.settings
    yield "problem", f"{problem['name']} ({problem['data']}), {count(result.model['parameters'])} parameters"
    examples = f"{count(problem['train_examples'])} to train on, {count(problem['test_examples'])} held out"
    yield "examples", f"{examples}, batches of {settings['batch_size']}, likelihood {problem['likelihood']}"
    used = _settings(settings["settings"])
    yield "optimizer", f"{result.optimizer} ({used})"
    if len(result.coverage) > 1:
        total = sum(result.coverage.values())
        parts = (f"{how}: {count(number)} of {count(total)}" for how, number in result.coverage.items())
        yield "parameters", "; ".join(parts)
    ended = f"{_STATUS[result.status]} after {count(result.steps)} steps, {_number(result.epochs)} epochs"
    yield "status", f"{ended}: {result.reason}" if result.reason else ended
    if result.target is not None:
        yield "target", f"{result.target['expression']}: {'met' if result.target['met'] else 'not met'}"
    for gate in result.gates:
        yield "gate", f"{gate['expression']}: {'holds' if gate['holds'] else 'does not hold'}"


def _closing(result: TrainingResult) -> Iterator[tuple[str, str]]:
    best = result.best
    if best is not None and best["step"] != result.evaluated:
        parts = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in best["test"].items())
        yield "smallest test loss", f"after epoch {_number(best['epoch'])}: {parts}"
    seconds = {name: f"{value:.2f}" for name, value in result.seconds.items()}
    yield (
        "seconds",
        f"training {seconds['train']} (of which warm start {seconds['warm_start']}), evaluation {seconds['evaluation']}"
        f", saving {seconds['saving']}",
    )
    failed = sum(result.failures.values())
    yield "safety", f"{result.skipped} steps skipped for gradients that were not finite, {failed} inverses failing"
    if pairs := result.counters:
        kinds = ("damped", "skipped", "non_finite")
        numbers = ", ".join(f"{count(pairs[kind])} {kind.replace('_', ' ')}" for kind in kinds)
        yield "pairs", f"{count(pairs['pairs'])}, of which {numbers}"
    memory = result.memory
    peak = "" if memory["peak"] is None else f"process at most {size(memory['peak'])}, "
    yield "memory", f"{peak}optimizer state {size(memory['state'] or 0)}"
    diverged = result.status == "diverged"
    model = f"model.safetensors of step {result.model['step']}, the last saved" if diverged else "model.safetensors"
    yield "files", f"{result.folder}/ ({model}, metrics.jsonl, summary.json, state/)"
    if diverged:
        yield "start again", retry_advice(result)
        return
    yield "profile", analyze_command(result)
    if result.model["data"] is None:
        yield "data", "a model's file names embedded datasets only, never a path: --data says where the examples are"
    if result.status in ("interrupted", "out-of-time"):
        yield "go on", resume_command(result)
    elif result.status == "finished" and not parse_schedule(result.settings["schedule"]).knows_the_end:
        yield "go on", f"{resume_command(result)} --epochs {max(1, round(2 * result.epochs))}"


def analyze_command(result: TrainingResult) -> str:
    """The command that profiles the trained network."""
    command = f"curvlab analyze {shlex.quote(str(result.model['path']))}"
    if not result.model["self_contained"]:
        command += " --trust"
    if result.model["data"] is None:
        command += f" --data {shlex.quote(str(result.problem['spec']))}"
    return command


def resume_command(result: TrainingResult) -> str:
    """The command that goes on with the run."""
    command = f"curvlab train --resume --out {shlex.quote(str(result.folder))}"
    if result.settings["architecture"] is not None:
        return f"{command} --trust"  # the saved run names code: the user has to ask for it again
    data = result.settings["data"]
    return command if data is None or is_name(data) else f"{command} --data {shlex.quote(str(data))}"


def retry_advice(result: TrainingResult) -> str:
    """What to change after a run that diverged."""
    settings = result.settings["settings"]
    changes = [f"{name} {way} {settings[name]:g}" for name, way in RETRY.items() if settings.get(name)]
    return f"with --force and {' or '.join(changes) or 'other settings'} (--set)"


def _settings(settings: Mapping[str, Any]) -> str:
    """Settings with their values; what is off (None) is left out."""
    return ", ".join(f"{name} {_number(value)}" for name, value in settings.items() if value is not None)


def _number(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    return short(value) if isinstance(value, int | float) else str(value)

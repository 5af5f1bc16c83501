"""`curvlab train`: a network trained with any of the optimizers, in a terminal or in CI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvlab.errors import CommandError
from curvlab.fields import fields_of
from curvlab.training.settings import TrainingSettings

from .delivery import Targets, delivers, publish
from .options import takes
from .output import say
from .progress import progress

if TYPE_CHECKING:
    from curvlab.training.result import TrainingResult

REFUSED, INTERRUPTED, DIVERGED = 3, 130, 1
"""Exit codes: a target was not met or a gate holds, the user ended it, it diverged."""
TASK, METHOD, BUDGET, LIMITS, OUTPUT = "What is trained", "How", "How long", "Limits", "Output"

EPILOG = """
[bold]Examples[/bold]

curvlab train --optimizer kfac

curvlab train --optimizer tnt --problem wine-mlp --set lr=0.01 --target 'test.accuracy>0.95'

curvlab train --optimizer shampoo --architecture mynet:build --data photos.npz --epochs 30 --out runs/mine

curvlab train --resume --out runs/mine --trust --epochs 60

A target compares what a line of metrics.jsonl holds: train.loss, test.accuracy, seconds.train, step, and so on;
--fail-if what summary.json holds, such as best.test.loss or memory.peak.
"""


@takes(
    fields_of(TrainingSettings),
    {
        TASK: ("problem", "architecture", "data", "loss"),
        METHOD: ("optimizer", "batch_size", "schedule", "warm_start", "seed"),
        BUDGET: ("epochs", "steps", "target", "max_seconds"),
        LIMITS: ("device", "dtype", "threads", "max_memory"),
        OUTPUT: ("out", "save_every", "log_every", "snapshots", "save_factors", "fail_if"),
    },
)
@delivers(OUTPUT, "sections", "contract", plots="Loss curves as PNG and SVG.")
def train(
    options: dict[str, Any],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            rich_help_panel=METHOD,
            help="A setting of the optimizer, such as lr=0.03; may be repeated.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            rich_help_panel=METHOD,
            help="Options by name (batch_size = 100), the optimizer's settings in a table \\[set]; options win.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=LIMITS, help="Only tell sizes and settings.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", rich_help_panel=OUTPUT, help="Go on with the run in that folder, bit for bit.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", rich_help_panel=OUTPUT, help="Replace the run in that folder.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            rich_help_panel=TASK,
            help="Import the code, and read the path, that the saved run or the --config file names.",
        ),
    ] = False,
    *,
    targets: Targets,
) -> None:
    """Train a network, and leave it ready to be profiled.

    The folder then holds model.safetensors, metrics.jsonl, summary.json and
    state/, from which --resume goes on as if the run had never stopped. Ctrl-C
    ends it after the current step; a second one at once.
    """
    from curvlab.training.configuration import configured

    values = configured(options, set_ or (), config, trust=trust)
    if dry_run:
        if resume:
            raise CommandError("--dry-run describes a run that begins", "--resume has begun already")
        for option, given in (("--fail-if", values.get("fail_if")), ("--force", force)):
            if given:
                raise CommandError(f"--dry-run does nothing that {option} is about", do="leave one of them out")
        targets.refuse("--dry-run computes nothing")
        _plan(values, targets)
        return
    result = _trained(values, resume, force, trust)
    _report(result, targets)
    raise typer.Exit(_code(result))


def _trained(values: dict[str, Any], resume: bool, force: bool, trust: bool) -> TrainingResult:
    with progress() as report:
        from curvlab.training.train import Start, train

        command = ("curvlab", *sys.argv[1:])
        return train(values, Start(resume, force, command, trust), report, lambda sentence: say(f"note: {sentence}"))


def _plan(values: dict[str, Any], targets: Targets) -> None:
    from curvlab.reports.training import plan_document
    from curvlab.training.train import plan

    publish(plan_document(plan(values)), targets)


def _report(result: TrainingResult, targets: Targets) -> None:
    from curvlab.reports.training import training_document
    from curvlab.reports.training_figures import training_figures

    figures = () if targets.plots is None else tuple(training_figures(result))
    publish(training_document(result, figures), targets)


def _code(result: TrainingResult) -> int:
    """The exit code, with one sentence on stderr where it is not 0."""
    from curvlab.reports.training import resume_command, retry_advice

    if result.status == "diverged":
        say(f"the run diverged: {result.reason}; start again: {retry_advice(result)}")
        return DIVERGED
    if result.status == "interrupted":
        say(f"interrupted after step {result.steps}, everything is saved; go on with: {resume_command(result)}")
        return INTERRUPTED
    failed = [gate for gate in result.gates if gate["holds"]]
    for gate in failed:
        say(f"gate '{gate['expression']}' holds: {'; '.join(gate['evidence'])}")
    unmet = result.target is not None and not result.target["met"]
    if result.target is not None and unmet:
        say(f"the target '{result.target['expression']}' was not met in {result.steps} steps")
    return REFUSED if failed or unmet else 0

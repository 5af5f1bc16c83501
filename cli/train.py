"""`curvlab train`: a network trained with any of the optimizers, in a terminal or in CI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvlab.errors import CommandError
from curvlab.training.settings import NAMES

from .output import STDOUT, check_target, deliver, say, show
from .progress import progress
from .sizes import parse_size

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


def train(
    problem: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=TASK,
            help="One of [bold]curvlab list problems[/bold]; digits-mlp when nothing is said.",
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", rich_help_panel=TASK, help="A network of your own: [bold]package.module:callable[/bold]."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            rich_help_panel=TASK,
            help="A name of [bold]curvlab list datasets[/bold] or a path; replaces a problem's data.",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=TASK,
            help="Of an architecture: cross-entropy, bce, mse, or auto, which looks at the targets.",
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=METHOD, help="One of [bold]curvlab list optimizers[/bold]."),
    ] = None,
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
    batch_size: Annotated[int | None, typer.Option(rich_help_panel=METHOD, help="Examples per step.")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", rich_help_panel=METHOD, help="Of the rate: constant, cosine, linear, step:EPOCHS:FACTOR."
        ),
    ] = None,
    warm_start: Annotated[
        bool | None,
        typer.Option(
            "--warm-start/--no-warm-start",
            rich_help_panel=METHOD,
            help="Begin with a pass for the statistics, where the optimizer has one (it does by default).",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(rich_help_panel=METHOD, help="Of weights, order, held-out part, draws; default 0.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(rich_help_panel=BUDGET, help="Passes over the training set; default the problem's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(rich_help_panel=BUDGET, help="Steps, in place of epochs.")] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="EXPR", rich_help_panel=BUDGET, help="Stop when it holds; exit with 3 when it never did."),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(rich_help_panel=BUDGET, help="Stop after this much time, ready to be resumed.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", rich_help_panel=LIMITS, help="auto, cpu, cuda, cuda:1, mps.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=LIMITS, help="float32 or float64, of weights and data."),
    ] = None,
    threads: Annotated[int | None, typer.Option(rich_help_panel=LIMITS, help="Processor threads to use.")] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", rich_help_panel=LIMITS, help="Of the examples, at most this much, such as 8GiB."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=LIMITS, help="Only tell sizes and settings.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", rich_help_panel=OUTPUT, help="Folder; default runs/PROBLEM-OPTIMIZER."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", rich_help_panel=OUTPUT, help="Go on with the run in that folder, bit for bit.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            rich_help_panel=TASK,
            help="Import the code, and read the path, that the saved run or the --config file names.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", rich_help_panel=OUTPUT, help="Replace the run in that folder.")
    ] = False,
    save_every: Annotated[
        int | None, typer.Option(rich_help_panel=OUTPUT, help="Save the state every so many steps, too.")
    ] = None,
    log_every: Annotated[
        int | None, typer.Option(rich_help_panel=OUTPUT, help="A line of metrics every so many steps, too.")
    ] = None,
    snapshots: Annotated[
        int | None, typer.Option(rich_help_panel=OUTPUT, help="Keep the model every so many epochs.")
    ] = None,
    save_factors: Annotated[
        bool | None,
        typer.Option("--save-factors", rich_help_panel=OUTPUT, help="Write the averaged curvature factors."),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(metavar="DIR", rich_help_panel=OUTPUT, help="Loss curves as PNG and SVG."),
    ] = None,
    json: Annotated[
        str | None, typer.Option(metavar="PATH", rich_help_panel=OUTPUT, help="The summary as JSON; '-' is stdout.")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR",
            rich_help_panel=OUTPUT,
            help="Exit with 3 when this holds of the summary; may be repeated.",
        ),
    ] = None,
) -> None:
    """Train a network, and leave it ready to be profiled.

    The folder then holds model.safetensors, metrics.jsonl, summary.json and
    state/, from which --resume goes on as if the run had never stopped. Ctrl-C
    ends it after the current step; a second one at once.
    """
    # The options that are settings have the settings' names.
    options = {name: value for name, value in locals().items() if name in NAMES}
    options["fail_if"] = tuple(fail_if) if fail_if else None
    options["max_memory"] = None if max_memory is None else parse_size(max_memory, "--max-memory")
    check_target(json, "--json")
    from curvlab.training.configuration import configured

    values = configured(options, set_ or (), config, trust=trust)
    if dry_run:
        if resume:
            raise CommandError("--dry-run looks at a run that begins", "--resume has begun already")
        _plan(values, json)
        return
    result = _trained(values, resume, force, trust)
    _report(result, json, plots)
    raise typer.Exit(_code(result))


def _trained(values: dict[str, Any], resume: bool, force: bool, trust: bool) -> TrainingResult:
    with progress() as report:
        from curvlab.training.train import Start, train

        command = ("curvlab", *sys.argv[1:])
        return train(values, Start(resume, force, command, trust), report, lambda sentence: say(f"note: {sentence}"))


def _plan(values: dict[str, Any], json: str | None) -> None:
    from curvlab.document.json import dumps, plain
    from curvlab.reports.training import print_plan
    from curvlab.training.train import plan

    found = plan(values)
    deliver(dumps(plain(found)), json)
    if json != STDOUT:
        show(lambda console: print_plan(console, found))


def _report(result: TrainingResult, json: str | None, plots: Path | None) -> None:
    from curvlab.document.json import dumps
    from curvlab.reports.training import print_training

    deliver(dumps(result.to_dict()), json)
    if plots is not None:
        from curvlab.reports.training_plots import plot_training

        plot_training(result, plots)
    if json != STDOUT:
        show(lambda console: print_training(console, result))


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

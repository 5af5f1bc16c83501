"""`curvlab analyze`: from a saved model to a table, JSON, CSV and a verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from curvlab.analyses.settings import Settings
from curvlab.errors import CommandError
from curvlab.fields import fields_of
from curvlab.reports.sorting import Sort

from .options import takes
from .output import STDOUT, check_target, deliver, say, show
from .progress import progress

if TYPE_CHECKING:
    from curvlab.analyses.results import Analysis
    from curvlab.formats.checkpoint import Checkpoint

GATE = 3
"""Exit code when a `--fail-if` holds."""
INPUT, WORK, LIMITS, OUTPUT = "Model and data", "What is computed", "Limits", "Output"

EPILOG = """
[bold]Examples[/bold]

curvlab analyze model.safetensors

curvlab analyze weights.pt --architecture mynet:build --data photos.npz --sort condition

curvlab analyze model.safetensors --json - --fail-if 'any.kfac.kronecker.condition_number > 1e12'

A gate compares what the JSON holds: PATH, LAYER.PATH, any.PATH or all.PATH, numbers, + - * /, and, or, not.
"""


@takes(
    fields_of(Settings),
    {
        INPUT: ("samples", "batch_size"),
        WORK: ("analyses", "layers", "loss", "fisher_type", "mc_samples", "kfac_approx", "statistic", "seed"),
        LIMITS: ("device", "dtype", "max_memory"),
    },
)
def analyze(
    options: dict[str, Any],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file, or a folder with one.", show_default=False)
    ],
    architecture: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            rich_help_panel=INPUT,
            help="How to build the network when the file does not say: [bold]package.module:callable[/bold], "
            "[bold]timm:NAME[/bold], or [bold]hf[/bold] for the config.json beside the file.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            rich_help_panel=INPUT,
            help="A name of [bold]curvlab list datasets[/bold] or a path; [bold]gaussian:3x32x32[/bold] is synthetic.",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", rich_help_panel=INPUT, help="Run code of the file: TorchScript, .pt2, a builder that it names."
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=LIMITS, help="Processor threads to use.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=LIMITS, help="Only tell sizes, memory and work per layer.")
    ] = False,
    sort: Annotated[
        Sort,
        typer.Option(
            metavar="ORDER",
            rich_help_panel=OUTPUT,
            help=f"Order of the table's rows: {', '.join(get_args(Sort))}. Largest first; condition is worst first.",
        ),
    ] = "model",
    json: Annotated[
        str | None, typer.Option(metavar="PATH", rich_help_panel=OUTPUT, help="Write JSON; '-' is stdout.")
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="PATH", rich_help_panel=OUTPUT, help="Write CSV; '-' is stdout.")
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", rich_help_panel=OUTPUT, help="Draw spectra, conditioning, FOP's matrices: PNG, SVG."
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(metavar="EXPR", rich_help_panel=OUTPUT, help="Exit with 3 when this holds; may be repeated."),
    ] = None,
) -> None:
    """Profile a saved model: its weights, its layers' inputs, its curvature.

    The file alone gives a table of its weights, and of what FOP has learned
    where that trained it. With data and a network to run (the file's own, or
    --architecture), each layer's input features and curvature factors follow.
    MODEL may be the folder of a training run, or one of Hugging Face or timm.
    Nothing in a file is executed without --trust.
    """
    from curvlab.gates import parse

    gates = [parse(text) for text in fail_if or ()]
    _check_outputs(json, csv, dry_run, bool(gates))
    if sort != "model" and (dry_run or STDOUT in (json, csv)):
        raise CommandError("--sort orders the table", "none is printed here", "leave it out")
    _check_plots(plots, dry_run)
    settings = Settings(**options)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    checkpoint = _checkpoint(model, architecture, trust, settings)
    if dry_run:
        _estimate(checkpoint, data, settings, json)
        return
    analysis = _analysis(checkpoint, data, settings)
    _report(analysis, json, csv, sort)
    if plots is not None:
        _draw(analysis, checkpoint, plots)
    found = analysis.to_dict() if gates else {}
    verdicts = [(gate, gate.check(found)) for gate in gates]
    failed = [(gate, verdict) for gate, verdict in verdicts if verdict.holds]
    for gate, verdict in failed:
        say(f"gate '{gate.text}' holds: {'; '.join(verdict.evidence) or 'for every layer'}")
    if failed:
        raise typer.Exit(GATE)


def _check_outputs(json: str | None, csv: str | None, dry_run: bool, gated: bool) -> None:
    """Refuse, before any work, what could not be delivered after it."""
    check_target(json, "--json")
    check_target(csv, "--csv")
    if json == csv == STDOUT:
        raise CommandError("--json and --csv both ask for stdout", "only one can have it", "give one of them a file")
    if dry_run and csv is not None:
        raise CommandError("--dry-run has no CSV", do="use --json")
    if dry_run and gated:
        raise CommandError("--dry-run computes nothing that --fail-if could look at")


def _check_plots(plots: Path | None, dry_run: bool) -> None:
    if plots is not None and dry_run:
        raise CommandError("--dry-run computes nothing that --plots could draw")
    if plots is not None and plots.exists() and not plots.is_dir():
        raise CommandError(f"--plots '{plots}' is a file", "the name of a folder was expected")


def _checkpoint(model: str, architecture: str | None, trust: bool, settings: Settings) -> Checkpoint:
    with progress() as report:
        report("reading the model", 0, None)
        from curvlab.formats.load import load

        return load(model, architecture=architecture, trust=trust, max_memory=settings.max_memory)


def _analysis(checkpoint: Checkpoint, data: str | None, settings: Settings) -> Analysis:
    from curvlab.analyses.analyze import analyze as profile

    with progress() as report:
        return profile(checkpoint, data, settings=settings, progress=report, command=("curvlab", *sys.argv[1:]))


def _draw(analysis: Analysis, checkpoint: Checkpoint, folder: Path) -> None:
    from curvlab.reports.plots import plot_analysis

    written = plot_analysis(analysis, folder, checkpoint)
    names = ", ".join(sorted({path.stem for path in written}))
    say(f"drawn in {folder}, as PNG and SVG: {names}" if written else "--plots: there is nothing to draw")


def _estimate(checkpoint: Checkpoint, data: str | None, settings: Settings, json: str | None) -> None:
    from curvlab.analyses.analyze import estimate
    from curvlab.document.json import dumps
    from curvlab.reports.estimate import estimate_to_dict, print_estimate

    cost = estimate(checkpoint, data, settings=settings)
    deliver(dumps(estimate_to_dict(cost)), json)
    if json != STDOUT:
        show(lambda console: print_estimate(console, cost))


def _report(analysis: Analysis, json: str | None, csv: str | None, sort: Sort) -> None:
    """Files first, so that a reader who closes the pipe early loses nothing; then the table, unless stdout is taken."""
    from curvlab.document.json import dumps
    from curvlab.reports.csv import to_csv
    from curvlab.reports.terminal import print_analysis

    if json is not None:
        deliver(dumps(analysis.to_dict()), json)
    if csv is not None:
        deliver(to_csv(analysis), csv)
    if STDOUT not in (json, csv):
        show(lambda console: print_analysis(console, analysis, sort))

"""`curvlab analyze`: from a saved model to a table, JSON, CSV and a verdict."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvlab.analyses.settings import Settings
from curvlab.errors import CommandError
from curvlab.fields import fields_of

from .delivery import Targets, delivers, publish
from .options import takes
from .output import say
from .progress import progress

if TYPE_CHECKING:
    from curvlab.analyses.results import Analysis
    from curvlab.formats.checkpoint import Checkpoint

GATE = 3
"""Exit code when a `--fail-if` holds."""
INPUT, WORK, LIMITS, OUTPUT = "Model and data", "What is computed", "Limits", "Output"
FACTORS = "Factor files"

EPILOG = """
[bold]Examples[/bold]

curvlab analyze model.safetensors

curvlab analyze checkpoint-folder --data corpus.txt --samples 16

curvlab analyze weights.pt --architecture mynet:build --data photos.npz --sort condition

curvlab analyze model.safetensors --json - --fail-if 'any.kfac.kronecker.condition_number > 1e12'

A gate compares what the JSON holds: PATH, LAYER.PATH, any.PATH or all.PATH, numbers, + - * /, and, or, not.
"""


@takes(
    fields_of(Settings),
    {
        INPUT: ("samples", "sequence_length", "batch_size"),
        WORK: ("analyses", "layers", "loss", "fisher_type", "mc_samples", "kfac_approx", "statistic", "seed"),
        LIMITS: ("device", "dtype", "max_memory"),
        FACTORS: ("factors", "eigenbases", "factors_from"),
    },
)
@delivers(OUTPUT, plots="Draw what there is to see, as PNG and SVG.")
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
            help="A name of [bold]curvlab list datasets[/bold] or a path, to text as well; "
            "[bold]gaussian:3x32x32[/bold] is synthetic.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="DIR", rich_help_panel=INPUT, help="The model that an adapter folder (PEFT) changes."),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", rich_help_panel=INPUT, help="Add the adapter to the weights of its base."),
    ] = False,
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
        str,
        typer.Option(
            metavar="ORDER",
            rich_help_panel=OUTPUT,
            help="Order of the table's rows: model, name, parameters, condition (worst first), or another number of "
            "[bold]curvlab list analyses[/bold], largest first.",
        ),
    ] = "model",
    every: Annotated[
        bool,
        typer.Option("--all", rich_help_panel=OUTPUT, help="Print the row of every layer, also of more than 40."),
    ] = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(metavar="EXPR", rich_help_panel=OUTPUT, help="Exit with 3 when this holds; may be repeated."),
    ] = None,
    *,
    targets: Targets,
) -> None:
    """Profile a saved model: its weights, its layers' inputs, its curvature.

    The file alone gives a table of its weights. With data and a network to run
    (the file's own, or --architecture), each layer's input features and
    curvature factors follow; curvlab list analyses names all that can be asked
    for. MODEL may be the folder of a training run, or one of Hugging Face or
    timm. Nothing in a file is executed without --trust.
    """
    from curvlab.gates import parse

    gates = [parse(text) for text in fail_if or ()]
    if dry_run:
        targets.refuse("--dry-run computes nothing")
        if gates:
            raise CommandError("--dry-run computes nothing that --fail-if could test")
    if sort != "model":
        from curvlab.analyses.registry import check_sort

        check_sort(sort)
        if dry_run or not targets.shown:
            raise CommandError("--sort orders the table", "none is printed here", "leave it out")
    if every and (dry_run or not targets.shown):
        raise CommandError("--all prints the whole table", "none is printed here", "leave it out")
    settings = Settings(**options)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    if architecture is not None and (base is not None or merge):
        raise CommandError("--architecture and --base both say what the network is", do="leave one out")
    idle = data is None and settings.factors_from is None
    checkpoint = _checkpoint(model, settings, architecture=architecture, trust=trust, base=base, merge=merge, idle=idle)
    if dry_run:
        _estimate(checkpoint, data, settings, targets)
        return
    analysis = _analysis(checkpoint, data, settings)
    _report(analysis, checkpoint, targets, sort, every)
    found = analysis.to_dict() if gates else {}
    verdicts = [(gate, gate.check(found)) for gate in gates]
    failed = [(gate, verdict) for gate, verdict in verdicts if verdict.holds]
    for gate, verdict in failed:
        say(f"gate '{gate.text}' holds: {'; '.join(verdict.evidence) or 'for every layer'}")
    if failed:
        raise typer.Exit(GATE)


def _checkpoint(model: str, settings: Settings, **options: Any) -> Checkpoint:
    with progress() as report:
        report("reading the model", 0, None)
        from curvlab.formats.load import load

        return load(model, max_memory=settings.max_memory, **options)


def _analysis(checkpoint: Checkpoint, data: str | None, settings: Settings) -> Analysis:
    from curvlab.analyses.analyze import analyze as profile

    with progress() as report:
        return profile(checkpoint, data, settings=settings, progress=report, command=("curvlab", *sys.argv[1:]))


def _estimate(checkpoint: Checkpoint, data: str | None, settings: Settings, targets: Targets) -> None:
    from curvlab.analyses.analyze import estimate
    from curvlab.reports.estimate import estimate_document

    publish(estimate_document(estimate(checkpoint, data, settings=settings)), targets)


def _report(analysis: Analysis, checkpoint: Checkpoint, targets: Targets, sort: str, every: bool) -> None:
    from curvlab.reports.analysis import analysis_document
    from curvlab.reports.analysis_figures import analysis_figures

    figures = () if targets.plots is None else analysis_figures(analysis, checkpoint)
    publish(analysis_document(analysis, sort, figures, every), targets)

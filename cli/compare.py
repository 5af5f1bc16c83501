"""`curvlab compare`: directions beside the block Fisher's, and training races."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvlab.comparison.request import choices
from curvlab.errors import CommandError

from .delivery import Targets, delivers, publish
from .options import takes
from .output import say
from .progress import progress
from .ranges import parse_range

if TYPE_CHECKING:
    from curvlab.comparison.results import Comparison

REFUSED = 3
WHAT, HOW, RACE, LIMITS, OUTPUT = "What is compared", "Directions", "Races", "Limits", "Output"

EPILOG = """
[bold]Examples[/bold]

curvlab compare --optimizers lnb,kfac,tnt

curvlab compare --optimizers kfac,kfac-small=kfac --set kfac-small.damping=0.001 --damping 1e-4:1:7

curvlab compare examples/digits-cnn.safetensors --optimizers kfac,ekfac,tnt

curvlab compare --mode training --problem wine-mlp --optimizers kfac,adam --seeds 0,1,2 --target 'train.loss<0.1'
"""


@takes(
    choices(),
    {
        WHAT: ("architecture", "data", "loss", "mode"),
        HOW: ("steps", "baseline", "interval", "warm_start", "layers"),
        RACE: ("seeds", "epochs", "seconds", "target"),
        LIMITS: ("samples", "batch_size", "seed", "device", "dtype", "max_memory"),
    },
)
@delivers(OUTPUT, plots="Figures as PNG and SVG.")
def compare(
    options: dict[str, Any],
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A saved model: directions at its weights. Without: a problem."),
    ] = None,
    optimizers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=WHAT,
            help="Names of [bold]curvlab list optimizers[/bold], with commas; LABEL=NAME gives one its own settings.",
        ),
    ] = None,
    problem: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=WHAT,
            help="One of [bold]curvlab list problems[/bold]; for races also several with commas. Default digits-mlp.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="LABEL.KEY=VALUE", rich_help_panel=WHAT, help="Such as kfac.damping=0.03; may be repeated."
        ),
    ] = None,
    damping: Annotated[
        str | None,
        typer.Option(
            metavar="FROM:TO:N", rich_help_panel=HOW, help="Try N values of every damping, evenly spaced by ratio."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=LIMITS, help="Processor threads to use.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=LIMITS, help="Only tell layers, sizes and runs.")
    ] = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR",
            rich_help_panel=OUTPUT,
            help="Exit with 3 when this holds of the JSON: 'kfac.mean<0.6'; may be repeated.",
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", rich_help_panel=OUTPUT, help="Run the code that MODEL's file names.")
    ] = False,
    *,
    targets: Targets,
) -> None:
    """Compare optimizers: directions with the block Fisher's, or training races.

    All optimizers see the same batches, recorded once for all of them.
    The block Fisher, or another --baseline, moves the weights; at a saved
    model's weights nothing moves.
    """
    if model is not None and problem is not None:
        raise CommandError("a MODEL and a --problem are given", "a comparison is of one of them")
    if problem is not None and "architecture" in options:
        raise CommandError("a --problem and an --architecture are given", "a comparison is of one of them")
    if trust and model is None:
        raise CommandError("--trust is for the code that a MODEL's file names", "no MODEL is given")
    if "seed" in options and "seeds" in options:
        raise CommandError("--seed and --seeds are given", "the first of --seeds is that of the directions")
    options["dampings"] = parse_range(damping, "--damping")
    rows = [writer.name for writer, _ in targets.writers() if writer.reads == "records"]
    if rows and options.get("mode") == "training":
        raise CommandError(f"--{rows[0]} holds directions", "a race has none", "use --json")
    if dry_run:
        targets.refuse("--dry-run computes nothing")
        if fail_if:
            raise CommandError("--dry-run computes nothing that --fail-if could use", do="leave one of them out")
    gates = fail_if or []
    for text in gates:
        from curvlab.gates import parse

        parse(text)  # what cannot be read is said before the work
    work = _work(model, problem, optimizers, set_ or [], (trust, threads), options)
    if dry_run:
        _plan(*work, options, targets)
        return
    with progress() as report:
        from curvlab.comparison.compare import compare as run

        found = run(*work, report=report, command=("curvlab", *sys.argv[1:]), **options)
    _report(found, targets)
    if gates and _refused(found, gates):
        raise typer.Exit(REFUSED)


def _work(
    model: str | None,
    problem: str | None,
    optimizers: str | None,
    assigned: list[str],
    loading: tuple[bool, int | None],
    options: dict[str, Any],
) -> tuple[Any, list[str]]:
    """What is compared, and the names of the optimizers; their settings join the options."""
    trust, threads = loading
    import torch

    from curvlab.comparison.compare import OPTIMIZERS
    from curvlab.comparison.optimizer_specs import assignments

    if threads is not None:
        torch.set_num_threads(threads)
    options["settings"] = assignments(assigned)
    names = [name.strip() for name in optimizers.split(",") if name.strip()] if optimizers else list(OPTIMIZERS)
    if model is None:
        return None if problem is None else [name.strip() for name in problem.split(",")], names

    from curvlab.formats.load import load
    from curvlab.problems.registry import names as known

    if model in known() and not Path(model).exists():
        raise CommandError(f"'{model}' is a problem and no file", do=f"write --problem {model}")
    architecture = options.pop("architecture", None)
    return load(model, architecture=architecture, trust=trust, max_memory=options.get("max_memory")), names


def _plan(what: Any, names: list[str], options: dict[str, Any], targets: Targets) -> None:
    from curvlab.comparison.plan import plan
    from curvlab.comparison.request import Request
    from curvlab.reports.comparison import plan_document

    publish(plan_document(plan(what, names, Request().asked(options))), targets)


def _report(found: Comparison, targets: Targets) -> None:
    from curvlab.reports.comparison import comparison_document, comparison_figures

    figures = () if targets.plots is None else comparison_figures(found)
    publish(comparison_document(found, figures), targets)


def _refused(found: Comparison, gates: list[str]) -> bool:
    from curvlab.training.summary_gate import check_paths, verdicts

    document = found.to_dict()
    # An optimizer's label leads to its numbers: kfac.mean, "tnt-2".mean_cosine.fc1.
    document = {**document["optimizers"], **document}
    check_paths(gates, document)
    held = [verdict for verdict in verdicts(gates, document) if verdict["holds"]]
    for verdict in held:
        say(f"gate '{verdict['expression']}' holds: {'; '.join(verdict['evidence'])}")
    return bool(held)

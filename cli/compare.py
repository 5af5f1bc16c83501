"""`curvlab compare`: directions beside the block Fisher's, and training races."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvlab.errors import CommandError

from .output import STDOUT, check_target, deliver, say, show
from .progress import progress
from .ranges import parse_range, parse_whole_numbers
from .sizes import parse_size

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


def compare(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A saved model: directions at its weights. Without: a problem."),
    ] = None,
    optimizers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=WHAT,
            help="Of [bold]curvlab list optimizers[/bold], with commas; LABEL=NAME gives one settings of its own.",
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
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", rich_help_panel=WHAT, help="A dataset's name or a path; of a problem in its place."
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", rich_help_panel=WHAT, help="What runs MODEL: [bold]package.module:callable[/bold]."
        ),
    ] = None,
    loss: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=WHAT, help="Of MODEL: auto, cross-entropy, bce, mse.")
    ] = "auto",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="LABEL.KEY=VALUE", rich_help_panel=WHAT, help="Such as kfac.damping=0.03; may be repeated."
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option(metavar="MODE", rich_help_panel=WHAT, help="directions, training, or both.")
    ] = "directions",
    steps: Annotated[
        int | None,
        typer.Option(rich_help_panel=HOW, help="Of the trajectory, default 100; with --mode training of it."),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            metavar="NAME", rich_help_panel=HOW, help="An optimizer, or for small networks ggn or hessian (exact)."
        ),
    ] = "block-fisher",
    interval: Annotated[
        int, typer.Option(rich_help_panel=HOW, help="Steps between renewals of everyone's operators (T2).")
    ] = 5,
    warm_start: Annotated[
        bool,
        typer.Option(
            "--warm-start/--no-warm-start",
            rich_help_panel=HOW,
            help="Begin with a pass over the training set for everyone's averages.",
        ),
    ] = True,
    damping: Annotated[
        str | None,
        typer.Option(
            metavar="FROM:TO:N", rich_help_panel=HOW, help="Sweep everyone's damping over N values, evenly by ratio."
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", rich_help_panel=HOW, help="Only layers of such names; may be repeated."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N", rich_help_panel=RACE, help="Of the runs; default that of --seed.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(rich_help_panel=RACE, help="Budget; default the problem's.")] = None,
    seconds: Annotated[
        float | None, typer.Option(rich_help_panel=RACE, help="Budget of training seconds, in place of epochs.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="EXPR", rich_help_panel=RACE, help="Time until it holds: 'train.loss<0.3'."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(rich_help_panel=LIMITS, help="Examples for directions; default all, 1024 beside a MODEL."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(rich_help_panel=LIMITS, help="Of directions.")] = None,
    seed: Annotated[int, typer.Option(rich_help_panel=LIMITS, help="Of weights, order, and draws.")] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", rich_help_panel=LIMITS, help="auto, cpu, cuda, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(metavar="NAME", rich_help_panel=LIMITS, help="float32 or float64.")] = "float32",
    threads: Annotated[int | None, typer.Option(rich_help_panel=LIMITS, help="Processor threads to use.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", rich_help_panel=LIMITS, help="Of model and data, such as 8GiB.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=LIMITS, help="Only tell layers, sizes and runs.")
    ] = False,
    json: Annotated[
        str | None, typer.Option(metavar="PATH", rich_help_panel=OUTPUT, help="The comparison as JSON; '-' is stdout.")
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="PATH", rich_help_panel=OUTPUT, help="The cosines as CSV; '-' is stdout.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", rich_help_panel=OUTPUT, help="Figures as PNG and SVG.")
    ] = None,
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
) -> None:
    """How close each optimizer's direction comes to the block Fisher's; and who trains fastest.

    All see the same batches: one forward and backward pass feeds everyone.
    The block Fisher, or another --baseline, moves the weights; at a saved
    model's weights nothing moves.
    """
    if model is not None and problem is not None:
        raise CommandError("a MODEL and a --problem are given", "a comparison is of one of them")
    if dtype not in ("float32", "float64"):
        raise CommandError(f"--dtype {dtype} is not float32 or float64")
    check_target(json, "--json")
    check_target(csv, "--csv")
    if json == csv == STDOUT:
        raise CommandError("--json - and --csv - both go to stdout", do="give one of them a path")
    options: dict[str, Any] = {
        "mode": mode,
        "steps": steps,
        "baseline": baseline,
        "interval": interval,
        "warm_start": warm_start,
        "dampings": parse_range(damping, "--damping"),
        "layers": layers or (),
        "seeds": parse_whole_numbers(seeds, "--seeds"),
        "epochs": epochs,
        "seconds": seconds,
        "target": target,
        "data": data,
        "samples": samples,
        "batch_size": batch_size,
        "loss": loss,
        "seed": seed,
        "device": device,
        "dtype": dtype,
        "max_memory": None if max_memory is None else parse_size(max_memory, "--max-memory"),
    }
    if options["seeds"]:
        if seed:
            raise CommandError("--seed and --seeds are given", "the first of --seeds is that of the directions")
        del options["seed"]
    if threads is not None and threads < 1:
        raise CommandError(f"--threads {threads} is not a whole number above 0")
    if csv is not None and mode == "training":
        raise CommandError("--csv holds directions", "a race has none", "use --json")
    gates = fail_if or []
    for text in gates:
        from curvlab.gates import parse

        parse(text)  # what cannot be read is said before the work
    work = _work(model, problem, optimizers, set_ or [], (architecture, trust, threads), options)
    if dry_run:
        _plan(*work, options, json)
        return
    with progress() as report:
        from curvlab.comparison.compare import compare as run

        found = run(*work, report=report, command=("curvlab", *sys.argv[1:]), **options)
    _report(found, json, csv, plots)
    if gates and _refused(found, gates):
        raise typer.Exit(REFUSED)


def _work(
    model: str | None,
    problem: str | None,
    optimizers: str | None,
    assigned: list[str],
    loading: tuple[str | None, bool, int | None],
    options: dict[str, Any],
) -> tuple[Any, list[str]]:
    """What is compared, and the names of the optimizers; their settings join the options."""
    architecture, trust, threads = loading
    import torch

    from curvlab.comparison.compare import OPTIMIZERS, PROBLEM
    from curvlab.comparison.contestants import assignments

    if threads is not None:
        torch.set_num_threads(threads)
    options["settings"] = assignments(assigned)
    names = [name.strip() for name in optimizers.split(",") if name.strip()] if optimizers else list(OPTIMIZERS)
    if model is None:
        return [name.strip() for name in (problem or PROBLEM).split(",")], names
    from pathlib import Path

    from curvlab.formats.load import load
    from curvlab.problems.registry import names as known

    if model in known() and not Path(model).exists():
        raise CommandError(f"'{model}' is a problem and no file", do=f"write --problem {model}")
    return load(model, architecture=architecture, trust=trust, max_memory=options["max_memory"]), names


def _plan(what: Any, names: list[str], options: dict[str, Any], json: str | None) -> None:
    from curvlab.comparison.plan import plan
    from curvlab.comparison.request import Request
    from curvlab.document.json import dumps, plain
    from curvlab.reports.direction_tables import print_plan

    planned = plan(what, names, Request().asked(options))
    deliver(dumps(plain(planned)), json)
    if json != STDOUT:
        show(lambda console: print_plan(console, planned))


def _report(found: Comparison, json: str | None, csv: str | None, plots: Path | None) -> None:
    from curvlab.document.json import dumps
    from curvlab.reports.direction_csv import directions_to_csv

    deliver(dumps(found.to_dict()), json)
    if csv is not None:
        deliver(directions_to_csv(found), csv)
    if plots is not None:
        if found.optimizers:
            from curvlab.reports.direction_plots import plot_directions

            plot_directions(found, plots)
        if found.training is not None:
            from curvlab.reports.race_plots import plot_races

            plot_races(found.training, plots)
    if STDOUT in (json, csv):
        return
    if found.optimizers:
        from curvlab.reports.direction_tables import print_directions

        show(lambda console: print_directions(console, found))
    races = found.training
    if races is not None:
        from curvlab.reports.race_tables import print_races

        show(lambda console: print_races(console, races))


def _refused(found: Comparison, gates: list[str]) -> bool:
    from curvlab.training.summary_gate import verdicts

    document = found.to_dict()
    # An optimizer's label leads to its numbers: kfac.mean, "tnt-2".mean_cosine.fc1.
    document = {**document["optimizers"], **document}
    held = [verdict for verdict in verdicts(gates, document) if verdict["holds"]]
    for verdict in held:
        say(f"gate '{verdict['expression']}' holds: {'; '.join(verdict['evidence'])}")
    return bool(held)

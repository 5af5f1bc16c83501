"""The datasets known by name. Kept free of heavy imports: the command line lists these names.

The embedded ones are scikit-learn's bundled copies (BSD-3-Clause) of public data: digits, wine, breast cancer and
iris from the UCI Machine Learning Repository (CC BY 4.0), diabetes from Efron, Hastie, Johnstone and Tibshirani,
"Least Angle Regression", Annals of Statistics 2004. The play is Shakespeare's Coriolanus, in the public domain.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One named dataset, as `curvlab list datasets` shows it.

    `size` is the number of examples (None: as many as asked for), `shape` that of one example, `task` what its
    targets are.
    """

    name: str
    description: str
    size: int | None
    shape: str
    task: str | None
    source: str


_UCI = "UCI, CC BY 4.0"

ENTRIES = (
    Entry(
        "digits",
        "handwritten digits, 10 classes",
        1797,
        "1x8x8 in [0, 1]",
        "classification",
        f"Alpaydin & Kaynak 1998, {_UCI}",
    ),
    Entry(
        "digits-16x16",
        "the same, resized bilinearly",
        1797,
        "1x16x16 in [0, 1]",
        "classification",
        f"Alpaydin & Kaynak 1998, {_UCI}",
    ),
    Entry(
        "digits-28x28",
        "the same, resized bilinearly",
        1797,
        "1x28x28 in [0, 1]",
        "classification",
        f"Alpaydin & Kaynak 1998, {_UCI}",
    ),
    Entry(
        "digits-28x28-inverted",
        "the same, 1 - x",
        1797,
        "1x28x28 in [0, 1]",
        "classification",
        f"Alpaydin & Kaynak 1998, {_UCI}",
    ),
    Entry(
        "wine",
        "three cultivars by chemistry",
        178,
        "13, standardised",
        "classification",
        f"Aeberhard & Forina 1991, {_UCI}",
    ),
    Entry(
        "breast-cancer",
        "malignant or benign by cell nuclei",
        569,
        "30, standardised",
        "classification",
        f"Wolberg et al. 1993, {_UCI}",
    ),
    Entry(
        "iris", "three species by petals and sepals", 150, "4, standardised", "classification", f"Fisher 1936, {_UCI}"
    ),
    Entry(
        "diabetes",
        "disease progression after a year, standardised",
        442,
        "10, standardised",
        "regression",
        "Efron et al. 2004",
    ),
    Entry(
        "linear-map",
        "SYNTHETIC: y = Ax, x standard normal, A of condition number 1e5",
        1200,
        "60",
        "regression",
        "curvlab, after Recht 2017",
    ),
    Entry(
        "shapes",
        "SYNTHETIC: a disc and a square, classes per pixel",
        500,
        "1x16x16 in [0, 1]",
        "classification",
        "curvlab",
    ),
    Entry(
        "curves",
        "SYNTHETIC: smooth curves through three random points",
        12_000,
        "1x28x28 in [0, 1]",
        None,
        "curvlab, after Hinton & Salakhutdinov 2006",
    ),
    Entry(
        "coriolanus",
        "a play as 61 different characters, the next one for every position",
        2413,
        "64",
        "classification",
        "Shakespeare 1608, public domain",
    ),
    Entry(
        "gaussian",
        "SYNTHETIC: independent standard normal inputs",
        None,
        "gaussian:3x32x32",
        None,
        "standard normal",
    ),
)


def names() -> tuple[str, ...]:
    """Every name that `--data` accepts besides a path."""
    return tuple(entry.name for entry in ENTRIES)


def entry(name: str) -> Entry:
    """The entry called `name`; a KeyError when there is none."""
    return {entry.name: entry for entry in ENTRIES}[name]

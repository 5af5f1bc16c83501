"""A training step of the MNIST autoencoder (Ren 2022, Table 2.4, batch 1000) with every optimizer, beside its floor.

What is timed is a period of T2 = 20 steps in the steady state (forward, backward, statistics, one renewal of the
operators, update), so that a step's share of everything is in it. The weights hardly move (lr 1e-7) and the inputs are
random: the cost depends on neither, except where an inverse root has to be taken again in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.floors import FLOORS, network_layers, pieces
from benchmarks.targets import Target
from benchmarks.timing import alternate
from curvlab.optim import create
from curvlab.problems.problem import Problem
from curvlab.problems.registry import problem

T2 = 20
LR = 1e-7
NAMES = {"kfac": "K-FAC", "ekfac": "EKFAC", "tnt": "TNT", "shampoo": "Shampoo"}
ASKED = {"kfac": 2.85, "ekfac": 5.5, "tnt": 3.2, "shampoo": 2.8}
"""SGD-m steps that a step at T1 = 1 may take."""
PEER_BLOCKS = ((1024, "whole factors"), (512, "blocks of 512, its default"))
"""Block sizes of the peer, which is timed where it is installed: it brings packages that few want."""


def period(step: Callable[[], object]) -> Callable[[], None]:
    """T2 steps."""

    def run() -> None:
        for _ in range(T2):
            step()

    return run


def ours(chosen: Problem, name: str, x: Tensor, **intervals: int) -> Callable[[], None]:
    """A period of an optimizer of this package with the problem's settings."""
    model = chosen.build(0).to(x.device)
    settings = {**chosen.settings[name], **intervals, "lr": LR}
    optimizer = create(name, model, likelihood=chosen.likelihood, **settings)
    return period(lambda: optimizer.step(lambda: chosen.loss(model(x), x)))


def theirs(
    chosen: Problem, x: Tensor, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
) -> Callable[[], None]:
    """A period of another package's optimizer, in torch's usual loop."""
    model = chosen.build(0)
    optimizer = make(list(model.parameters()))

    def step() -> None:
        optimizer.zero_grad()
        chosen.loss(model(x), x).backward()
        optimizer.step()

    return period(step)


def scalable_shampoo(parameters: list[nn.Parameter], t1: int, block_size: int) -> torch.optim.Optimizer:
    """The peer set up as ours is: averages with β = 0.9, heavy ball, no grafting, roots by coupled Newton.

    Its roots by SVD are faster, but without a ridge: within a few dozen steps the factors are singular and it raises.
    A block size above all widths keeps the factors whole. It does not precondition biases.
    """
    from pytorch_optimizer import ScalableShampoo
    from pytorch_optimizer.optimizer.utils.graft import LayerWiseGrafting

    return ScalableShampoo(
        parameters,
        lr=LR,
        betas=(0.9, 0.9),
        start_preconditioning_step=1,
        statistics_compute_steps=t1,
        preconditioning_compute_steps=T2,
        block_size=block_size,
        graft_type=LayerWiseGrafting.NONE,
        nesterov=False,
        matrix_eps=3e-4,
    )


@dataclass(frozen=True)
class Contender:
    """What is timed, and for this package's second-order methods the (method, T1) of its floor."""

    title: str
    run: Callable[[], None]
    floor: tuple[str, int] | None = None


def contenders(chosen: Problem, x: Tensor) -> list[Contender]:
    """All of them; SGD-m, the first, is the unit."""
    made = [
        Contender("SGD-m", ours(chosen, "sgd", x)),
        Contender("torch.optim.SGD", theirs(chosen, x, partial(torch.optim.SGD, lr=LR, momentum=0.9))),
        Contender("Adam", ours(chosen, "adam", x)),
    ]
    for t1 in (1, 10):
        for name, title in NAMES.items():
            run = ours(chosen, name, x, statistics_interval=t1, inverse_interval=T2)
            made.append(Contender(f"{title}, T1 = {t1}", run, (name, t1)))
        for size, blocks in PEER_BLOCKS if find_spec("pytorch_optimizer") else ():
            run = theirs(chosen, x, partial(scalable_shampoo, t1=t1, block_size=size))
            made.append(Contender(f"pytorch_optimizer's ScalableShampoo ({blocks}), T1 = {t1}", run))
    return made


def measure(rounds: int) -> list[Target]:
    """Time everything in one run; print the steps, and what the floors are made of."""
    chosen = problem("mnist-autoencoder")
    torch.manual_seed(0)
    batches = list(torch.rand(4, chosen.batch_size, *chosen.input_shape))
    parts = pieces(network_layers(chosen.build(0), chosen.loss, batches), damping=3e-4)
    timed = contenders(chosen, batches[0])
    rows = alternate({one.title: one.run for one in timed} | parts, rounds)
    unit = rows[0].seconds / T2
    cost = {row.name: row.ratio * T2 for row in rows[len(timed) :]}
    print(f"\n### A step of the MNIST autoencoder (batch {chosen.batch_size:,}, T2 = {T2})\n")
    print("| step | ms | × SGD-m | min–max | CPU ms | CPU ratio | floor | step / floor | floor with memory traffic |")
    print("|---|---|---|---|---|---|---|---|---|")
    targets = []
    for one, row in zip(timed, rows, strict=False):
        low, high = row.spread
        floors = ("", "", "")
        if one.floor is not None:
            name, t1 = one.floor
            bare, moving = (1 + FLOORS[name].per_step(cost, (t1, T2), traffic) for traffic in (False, True))
            floors = (f"{bare:.2f}", f"{row.ratio / bare:.2f}", f"{moving:.2f}")
            if t1 == 1:
                targets.append(Target(f"a step of {row.name}, in SGD-m steps", row.ratio, ASKED[name]))
        wall = (f"{row.seconds / T2 * 1e3:.0f}", f"{row.ratio:.2f}", f"{low:.2f}–{high:.2f}")
        cells = (row.name, *wall, f"{row.cpu / T2 * 1e3:.0f}", f"{row.cpu_ratio:.2f}", *floors)
        print(f"| {' | '.join(cells)} |")
    print("\n| piece of the floors, one call for all layers | ms | in SGD-m steps |\n|---|---|---|")
    for name, value in cost.items():
        print(f"| {name} | {value * unit * 1e3:.1f} | {value:.3f} |")
    return targets

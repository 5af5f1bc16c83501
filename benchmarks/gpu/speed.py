"""Factors and steps on a device: milliseconds, ratios, and the memory that the device has held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.factors import ours
from benchmarks.networks import mlp, resnet18
from benchmarks.profiles import PASS, passing
from benchmarks.steps import NAMES, T2
from benchmarks.steps import ours as steps
from benchmarks.timing import Row, alternate
from curvlab.problems.registry import problem

Contenders = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Table:
    """Rows of one network, the first of which is the unit, and the most MiB that the device held during each."""

    title: str
    unit: str
    rows: tuple[Row, ...]
    memory: tuple[float | None, ...]


def waiting(device: torch.device) -> Callable[[], object]:
    """What returns when the device has done all it was given."""
    if device.type != "cuda":
        return lambda: None
    return lambda: torch.cuda.synchronize(device)


def tables(device: torch.device, quick: bool) -> Iterator[tuple[str, Callable[[], Table]]]:
    """(title, what measures it) of one table after another, the quickest first.

    Args:
        device: where the networks and the data are.
        quick: small networks and one round: a rehearsal, whose times mean nothing.
    """
    for title, network in _networks(quick):
        yield title, lambda t=title, n=network: _table(t, "one gradient", _factors(n, device), device, quick)
    title = "a step of the MNIST autoencoder"
    yield title, lambda: _table(title, "SGD-m", _steps(device, quick), device, quick, T2)


def _networks(quick: bool) -> Iterator[tuple[str, tuple[nn.Module, Tensor, Tensor]]]:
    if quick:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        yield "a small MLP, batch 8", (network, torch.rand(8, 6), torch.randint(0, 3, (8,)))
        return
    for examples in (512, 4096):
        yield f"MLP 784-1024-512-256-128-64-10, batch {examples}", mlp(examples)
    for stem, examples in ((7, 64), (3, 64), (3, 256)):
        yield f"ResNet-18, {stem}×{stem} stem, 32×32, batch {examples}", resnet18(stem, examples)


def _factors(network: tuple[nn.Module, Tensor, Tensor], device: torch.device) -> Contenders:
    model, x, y = (part.to(device) for part in network)
    made = ours(model, x, y)
    if device.type in ("cpu", "cuda", "mps"):
        made[PASS] = passing(model, x, y, waiting(device))
    return made


def _steps(device: torch.device, quick: bool) -> Contenders:
    chosen = problem("mnist-autoencoder")
    torch.manual_seed(0)
    x = torch.rand(8 if quick else chosen.batch_size, *chosen.input_shape).to(device)
    made = {"SGD-m": steps(chosen, "sgd", x)}
    if quick:
        return made
    made["Adam"] = steps(chosen, "adam", x)
    for t1 in (1, 10):
        for name, title in NAMES.items():
            intervals = {"statistics_interval": t1, "inverse_interval": T2}
            made[f"{title}, T1 = {t1}, T2 = {T2}"] = steps(chosen, name, x, **intervals)
    return made


def _table(title: str, unit: str, contenders: Contenders, device: torch.device, quick: bool, times: int = 1) -> Table:
    rows = alternate(contenders, 1 if quick else 7, waiting(device))
    each = [Row(r.name, r.seconds / times, r.ratio, r.spread, r.cpu / times, r.cpu_ratio) for r in rows]
    return Table(title, unit, tuple(each), tuple(_memory(run, device) for run in contenders.values()))


def _memory(run: Callable[[], object], device: torch.device) -> float | None:
    """MiB that were held at most while `run` ran, the network and the data included."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**20

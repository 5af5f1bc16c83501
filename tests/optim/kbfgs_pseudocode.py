"""K-BFGS as its papers write it down, with dense inverses: the oracle of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAM, LR, MU1, BETA = 0.3, 0.05, 0.2, 0.9


@dataclass
class Dense:
    """One layer's state in the pseudo-code."""

    a: Tensor
    ha: Tensor
    hg: Tensor
    s: Tensor
    y: Tensor
    m: Tensor
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def seen(model: nn.Module, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, ...]]]:
    """Gradients, and ā, h, ∂ℓ_n/∂h of every layer, rows by example and position, by hooks and unfolding."""
    found: dict[str, tuple[Tensor, ...]] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            output.retain_grad()
            a = args[0].detach()
            if isinstance(module, nn.Conv2d):
                a = F.unfold(a, module.kernel_size, padding=module.padding, stride=module.stride).transpose(1, 2)
            else:
                a = a[:, None]
            if module.bias is not None:
                a = torch.cat([a, torch.ones(*a.shape[:2], 1)], dim=2)
            found[name] = a, output

        return keep

    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    handles = [m.register_forward_hook(hook(name)) for name, m in layers.items()]
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    for handle in handles:
        handle.remove()

    def rows(t: Tensor) -> Tensor:
        return t.flatten(2).transpose(1, 2) if t.ndim == 4 else t[:, None]

    shown = {n: (a, rows(h.detach()), rows(h.grad) * len(x)) for n, (a, h) in found.items()}  # type: ignore[arg-type]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, shown


def joined(tensors: dict[str, Tensor], layer: str) -> Tensor:
    weight = tensors[f"{layer}.weight"].flatten(1)
    return torch.cat([weight, tensors[f"{layer}.bias"][:, None]], dim=1) if f"{layer}.bias" in tensors else weight


def bfgs(h: Tensor, s: Tensor, y: Tensor) -> Tensor:
    eye, rho = torch.eye(len(h)), 1 / (s @ y)
    return (eye - rho * torch.outer(s, y)) @ h @ (eye - rho * torch.outer(y, s)) + rho * torch.outer(s, s)


def turned(before: Tensor, after: Tensor) -> Tensor:
    """The change of the mean gradient; none in front of a batch norm, where the mean is zero but for rounding."""
    change = after.mean((0, 1)) - before.mean((0, 1))
    return change if change.abs().max() > 1e-14 else torch.zeros_like(change)


class Pseudocode:
    """Algorithms 4 (`old`) and 9 with BFGS, or L-BFGS by running BFGS over the last p pairs."""

    def __init__(self, model: nn.Module, old: bool, p: int | None) -> None:
        self.model, self.old, self.p = model, old, p
        self.layers: dict[str, Dense] = {}
        self.rest: dict[str, Tensor] = {}

    def lambdas(self, positions: int) -> tuple[float, float]:
        balance = 1 if self.old else positions**0.5
        return LAM**0.5 * balance, LAM**0.5 / balance

    def start(self, name: str, a: Tensor, o: int) -> None:
        moment = torch.einsum("nti,ntj->ij", a, a) / len(a)
        lam_a, lam_g = self.lambdas(a.shape[1])
        ha = torch.linalg.inv(moment + lam_a * torch.eye(len(moment)))
        hg = torch.eye(o) / (1 if self.old else lam_g)
        self.layers[name] = Dense(moment, ha, hg, torch.zeros(o), torch.zeros(o), torch.zeros(o, len(moment)))

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor) -> None:
        with torch.enable_grad():
            gradients, before = seen(self.model, x, y)
        parameters = dict(self.model.named_parameters())
        for name, (a, h, _) in before.items():
            if name not in self.layers:
                self.start(name, a, h.shape[2])
            state = self.layers[name]
            g = joined(gradients, name)
            state.m = BETA * state.m + (1 - BETA if self.old else 1) * g
            p = state.hg @ state.m @ state.ha
            weight = parameters[f"{name}.weight"]
            bias = parameters.get(f"{name}.bias")
            if bias is not None:
                bias -= LR * p[:, -1]
                p = p[:, :-1]
            weight -= LR * p.reshape(weight.shape)
        for name, g in gradients.items():
            if name.rpartition(".")[0] not in before:
                self.rest[name] = BETA * self.rest.get(name, torch.zeros_like(g)) + (1 - BETA if self.old else 1) * g
                parameters[name] -= LR / LAM * self.rest[name]
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        with torch.enable_grad():
            _, after = seen(self.model, x, y)
        for name, b in self.model.named_buffers():
            b.copy_(buffers[name])
        for name, (a, h, g) in before.items():
            self.learn(self.layers[name], a, (after[name][1] - h).mean((0, 1)), turned(g, after[name][2]))

    def learn(self, state: Dense, a: Tensor, moved: Tensor, change: Tensor) -> None:
        lam_a, lam_g = self.lambdas(a.shape[1])
        moment = torch.einsum("nti,ntj->ij", a, a) / len(a)
        state.a = BETA * state.a + (1 - BETA) * moment if self.old else moment
        s = state.ha @ a.mean((0, 1))
        state.ha = bfgs(state.ha, s, state.a @ s + lam_a * s)
        state.s = BETA * state.s + (1 - BETA) * moved
        state.y = BETA * state.y + (1 - BETA) * change
        s, y, hy = state.s, state.y, state.hg @ state.y
        if s @ y < MU1 * (y @ hy):
            theta = (1 - MU1) * (y @ hy) / (y @ hy - s @ y)
            s = theta * s + (1 - theta) * hy
        if not self.old:
            y = y + lam_g * s
        elif s @ y < lam_g * (s @ s):
            theta = (1 - lam_g) * (s @ s) / (s @ s - s @ y)
            y = theta * y + (1 - theta) * s
        state.pairs = [*state.pairs, (s, y)][-(self.p or 1) :]
        if self.p is None:
            state.hg = bfgs(state.hg, s, y)
        else:
            state.hg = torch.eye(len(s)) / (1 if self.old else lam_g)
            for pair in state.pairs:
                state.hg = bfgs(state.hg, *pair)

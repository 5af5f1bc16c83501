"""u = P(M)g, W ← W − ε p(u), M ← M − ρ Adam(∂J/∂M): a preconditioner learned beside the weights (FOP, Alg. 1, eq. 6–8).

`HypergradientOptimizer` is what FOP, S-HD and PP-HD share; they say which P(M) a parameter has.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn

from curvlab.field_types import DECAY, FROM_ZERO, SEED
from curvlab.fields import Setting, completed, fields_of
from curvlab.optim.adam import Betas, Eps
from curvlab.optim.adam_step import State, adam, descend, scaled, slope
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.declared import NO_SETTINGS, Params, WeightDecay
from curvlab.optim.fop.learned import Learned
from curvlab.optim.saved_state import moved

OF_ADAM = {"base": ("adam",)}


class HypergradientSettings(TypedDict, total=False):
    """Settings that FOP, S-HD and PP-HD take by name, with these defaults; all but `seed` also per group."""

    base: Annotated[
        Literal["sgd", "adam"],
        Setting("What is made of u: sgd, the heavy ball v ← αv + u, or adam.", default="sgd"),
    ]
    momentum: Annotated[float, Setting("α of the heavy ball.", DECAY, when={"base": ("sgd",)}, default=0.9)]
    betas: Annotated[Betas, Setting("β₁ and β₂ of the base optimizer Adam.", when=OF_ADAM)]
    eps: Annotated[Eps, Setting("Its ε.", when=OF_ADAM)]
    weight_decay: WeightDecay
    hyper_lr: Annotated[float, Setting("ρ: the learning rate of M.", FROM_ZERO, default=1e-4)]
    hyper_optimizer: Annotated[
        Literal["adam", "sgd"],
        Setting(
            "What learns M: adam (FOP, section 4.1), with β = 0.9, 0.999, or sgd (FOP, Alg. 1, line 7).", default="adam"
        ),
    ]
    seed: Annotated[int, Setting("Seed of M₀ where it is drawn.", SEED, default=0)]
    groups: Iterable[Mapping[str, Any]] | None


ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}
"""Settings of the Adam that learns M."""


class Part(NamedTuple):
    """What preconditions a parameter: `form` with the M of a block, which other parameters may share."""

    block: str
    form: Learned


class _Use(NamedTuple):
    """A parameter in a step, and its Part."""

    name: str
    p: Tensor
    part: Part
    group: dict[str, Any]
    state: dict[str, Any]


class HypergradientOptimizer(Optimizer):
    """Gradient descent on the weights and, one step behind, on what preconditions them.

    At step t: u = P(M⁽ᵗ⁾)∇J⁽ᵗ⁾ goes to the base optimizer; M⁽ᵗ⁺¹⁾ = M⁽ᵗ⁾ − ρ·Adam(h), h = −ε ∂⟨S∘∇J⁽ᵗ⁾, P(M)∇J⁽ᵗ⁻¹⁾⟩/∂M
    at M⁽ᵗ⁾, where FOP, Alg. 1 and eq. 4 have it (the chain rule of eq. 3 says M⁽ᵗ⁻¹⁾, one hyper-step earlier). ε and
    the base optimizer's slope S are those of the step that led from θ⁽ᵗ⁻¹⁾ to θ⁽ᵗ⁾.

    Args:
        model: the network, or parameters as torch.optim takes them.
        defaults: settings of its own for every group, "lr" among them.
        shared: see `HypergradientSettings`.

    Attributes:
        learned: block -> {"matrix": M, and the state of its Adam}.
    """

    learns_from_steps = takes_parameters = True

    def __init__(
        self, model: nn.Module | Params, defaults: dict[str, Any], **shared: Unpack[HypergradientSettings]
    ) -> None:
        given = completed(fields_of(HypergradientSettings, NO_SETTINGS), shared)
        self.seed: int = given.pop("seed")
        groups = given.pop("groups", None)
        super().__init__(model, {**defaults, **given}, groups)
        self.learned: dict[str, State] = {}
        self._known: dict[str, Part | None] = {}

    @abstractmethod
    def part(self, name: str, p: Tensor, group: Mapping[str, Any]) -> Part | None:
        """What preconditions a parameter; None where it follows the base optimizer alone."""

    # A step.

    def update(self, gradients: Named) -> Named:
        """Directions of the base optimizer for u = P(M⁽ᵗ⁾)∇J⁽ᵗ⁾; then M⁽ᵗ⁺¹⁾."""
        uses = self._uses(gradients)
        for use in uses:
            if use.part.block not in self.learned:
                self.learned[use.part.block] = {"matrix": self._matrix(use)}
        preconditioned = self._preconditioned(uses, gradients)
        self._learn(uses, gradients)
        for use in uses:
            g, state = gradients[use.name], self.state[use.p]
            # `zero_grad` and the next backward may write into p.grad; what autograd returned is not shared.
            state["previous"], state["rate"] = g.clone() if g is use.p.grad else g, use.group["lr"]
        return self._based(preconditioned)

    @torch.no_grad()
    def direction(self, gradients: Named) -> Named:
        """P(M)g; with the base optimizer Adam, scaled by its second moment so far."""
        directions = self._preconditioned(self._uses(gradients), gradients)
        for group, names, parameters in self.by_group(gradients):
            for name, p in zip(names, parameters, strict=True):
                if group["base"] == "adam" and "square" in self.state.get(p, {}):
                    (directions[name],) = scaled([directions[name]], [self.state[p]], group)
        return directions

    def _preconditioned(self, uses: Iterable[_Use], gradients: Named) -> Named:
        return {**gradients, **{use.name: use.part.form.apply(self._matrix(use), gradients[use.name]) for use in uses}}

    def _learn(self, uses: Iterable[_Use], gradients: Named) -> None:
        """M ← M − ρ·Adam(h), h summed over the parameters that share M."""
        uses = [use for use in uses if "previous" in use.state]
        found = []
        for name, _, (block, form), _, state in uses:
            now = gradients[name] * state["slope"] if "slope" in state else gradients[name]
            found.append(form.pull(self.learned[block]["matrix"], now, state["previous"]))
        if found:
            torch._foreach_mul_(found, [-use.state["rate"] for use in uses])
        hypergradients: Named = {}
        groups: dict[int, tuple[Mapping[str, Any], list[str]]] = {}
        for (_, _, (block, _), group, _), h in zip(uses, found, strict=True):
            if block in hypergradients:
                hypergradients[block] += h
            else:
                hypergradients[block] = h
                groups.setdefault(id(group), (group, []))[1].append(block)
        for learner, blocks in groups.values():
            states, steps = [self.learned[block] for block in blocks], [hypergradients[block] for block in blocks]
            matrices = [state["matrix"] for state in states]
            if learner["hyper_optimizer"] == "adam":
                descend(matrices, states, steps, {**ADAM, "lr": learner["hyper_lr"]})
            else:
                torch._foreach_add_(matrices, steps, alpha=-learner["hyper_lr"])

    def _based(self, preconditioned: Named) -> Named:
        if all(group["base"] == "sgd" for group in self.param_groups):
            return self.heavy_ball(preconditioned)
        directions: Named = {}
        for group, names, parameters in self.by_group(preconditioned):
            if group["base"] == "adam":
                states, us = [self.state[p] for p in parameters], [preconditioned[name] for name in names]
                directions.update(zip(names, adam(states, us, group), strict=True))
                for state, u in zip(states, us, strict=True):
                    if "previous" in state:
                        state["slope"] = slope(state, u, group)
        return directions | self.heavy_ball({n: u for n, u in preconditioned.items() if n not in directions})

    def _matrix(self, use: _Use) -> Tensor:
        """M of the parameter's block; M₀, not kept, before its first step."""
        block = use.part.block
        if block in self.learned:
            found: Tensor = self.learned[block]["matrix"]
            return found
        # A hash, so that no two blocks and no two runs share their numbers, whatever order they are first used in.
        mixed = int.from_bytes(hashlib.sha256(f"{self.seed} {block}".encode()).digest()[:8], "little") >> 1
        return use.part.form.start(use.p, torch.Generator().manual_seed(mixed))

    def _uses(self, tensors: Mapping[str, Tensor]) -> list[_Use]:
        """The trainable parameters among the names of `tensors` that something preconditions."""
        return [
            _Use(name, p, part, group, self.state.get(p, {}))
            for group, names, parameters in self.by_group(tensors)
            for name, p in zip(names, parameters, strict=True)
            if (part := self._part(name, p, group)) is not None
        ]

    def _part(self, name: str, p: Tensor, group: Mapping[str, Any]) -> Part | None:
        if name not in self._known:
            self._known[name] = self.part(name, p, group)
        return self._known[name]

    # What is there to see, and to save.

    @property
    def matrices(self) -> Named:
        """Block -> M (the tensors in use); M₀ for blocks that have not been stepped."""
        return {use.part.block: self._matrix(use) for use in self._uses(dict(self.model.named_parameters()))}

    def coverage(self) -> dict[str, str]:
        """Parameter name -> this method's name, or that it follows the base optimizer alone."""
        found = {}
        for group in self.param_groups:
            plain = "heavy ball" if group["base"] == "sgd" else "adam"
            for p in group["params"]:
                name = self.names[id(p)]
                inside = self._part(name, p, group) is not None
                found[name] = self.name if inside else f"{plain}: no matrix for a parameter of its shape"
        return found

    def saved_state(self) -> dict[str, Any]:
        """With M and the state of its Adam, by block."""
        return {**super().saved_state(), "learned": {block: dict(state) for block, state in self.learned.items()}}

    def restore_state(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.restore_state`; the learned matrices take the model's device and type."""
        super().restore_state(state_dict)
        self._known = {}  # the saved groups may have other forms
        self.learned = moved(
            {block: dict(state) for block, state in state_dict["learned"].items()}, self.parameters()[0]
        )

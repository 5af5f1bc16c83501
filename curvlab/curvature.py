"""Curvature statistics of a model on data, layer by layer, in the scale of docs/curvature.md: N examples, T
positions.

    A = 1/N Σ_n Σ_t āāᵀ      G = 1/(NT) Σ_n Σ_t ggᵀ      F = 1/N Σ_n vec(DW_n) vec(DW_n)ᵀ

`x, y` are tensors (one batch), or x is a loader of (inputs, targets) and y is None. For `fisher_type` "type-2" and
"empirical" the results are deterministic; "mc" draws its pseudo-targets from `seed`. The model's mode (train or eval)
is respected, dropout is drawn from `seed` too, and parameters, buffers, gradients and the global random state are left
as they were. Names are those of the model's modules, in the model's order.

Targets of shape (examples, positions) beside outputs (examples, positions, classes) mean that the classes are last, as
in language models. Without targets the classes are on axis 1; `Categorical(class_axis=-1)` says otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import Together
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.jacobian import jacobian_product
from curvlab.capture.model_call import ModelCall
from curvlab.capture.model_inputs import Inputs, batch_size, named_inputs
from curvlab.capture.output import output_tensor
from curvlab.capture.preserve import preserve, seed_generators
from curvlab.capture.survey import Survey, first_examples, survey
from curvlab.curvatures.block_fisher import FisherBlocks
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.data_average import DataAverage
from curvlab.curvatures.gradient_moments import GradientMoments
from curvlab.curvatures.input_moments import InputMoments, input_factor
from curvlab.curvatures.kfac import KfacFactors
from curvlab.curvatures.tensor_normal import TensorNormalCurvature
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods import likelihood as likelihood_named
from curvlab.likelihoods.fisher import Fisher
from curvlab.likelihoods.of_batch import of_batch
from curvlab.shapes import Float
from curvlab.statistics.tensor_normal import TensorStatistic

Loader = Iterable[Any]
"""Batches (inputs, targets), or bare inputs."""
Data = Inputs | Loader


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean `(d,)`, second moment `(d, d)` over all rows, without an appended 1, and their count N·T; grouped layers
    lead with g.

    `stored` is the second moment as it was summed: of one-hot features (Embedding) its diagonal `(d,)`.
    """

    mean: Tensor
    stored: Tensor
    count: int

    @property
    def second_moment(self) -> Tensor:
        """M = 1/(NT) Σ aaᵀ; that of a large vocabulary takes (vocabulary)² numbers, `stored` does not."""
        return self.stored if self.stored.ndim > self.mean.ndim else torch.diag_embed(self.stored)


@dataclass(frozen=True)
class KroneckerFactors:
    """A `(i, i)` with a 1 appended to the inputs of a biased layer, and G `(o, o)`; grouped layers lead with g."""

    input_factor: Tensor
    gradient_factor: Tensor


@dataclass(frozen=True)
class TensorFactors:
    """Ũ_1, …, Ũ_k of Ren 2022, eq. 4.10, one per mode of the parameter."""

    factors: tuple[Tensor, ...]


def feature_moments(model: nn.Module, x: Data) -> dict[str, FeatureStatistics]:
    """μ = 1/(NT) Σ a and M = 1/(NT) Σ aaᵀ of every layer's input, features without the bias's 1.

    Returns:
        {layer: `.mean` (d,), `.second_moment` (d, d), `.count`}, float64.

    Raises:
        CurvlabError: no layer could be recorded, or the data does not fit the model.
    """
    found, (average,) = _averages(model, x, None, None, [InputMoments()], 0)
    states = average.states()
    return {
        name: FeatureStatistics(_single(states[name]["mean"]), _single(states[name]["second"]), average.rows[name])
        for name in found.blocks
        if name in states
    }


def kfac_factors(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    *,
    likelihood: str | Likelihood,
    fisher_type: str = "mc",
    kfac_approx: str = "expand",
    mc_samples: int = 1,
    seed: int = 0,
) -> dict[str, KroneckerFactors]:
    """A = 1/N Σ_n Σ_t āāᵀ and G = 1/(NT) Σ_n Σ_t ggᵀ: the layer's Fisher block is G ⊗ A (Ren 2022, Alg. 7, 12; Grosse
    2021, section 5).

    "reduce" averages ā and sums g over the positions first, then treats them as one position. With "forward-only", G
    is the identity.

    Returns:
        {layer: `.input_factor` (i, i), `.gradient_factor` (o, o)}, float64; i counts the 1 of a biased layer.

    Raises:
        CurvlabError: unknown names, targets that do not fit, or no layer that could be recorded.
    """
    _choice("kfac_approx", kfac_approx, ("expand", "reduce"))
    reduced = kfac_approx == "reduce"
    both: list[Curvature] = [InputMoments(), GradientMoments(fisher_type, mc_samples)]
    recipes = [KfacFactors("factored", "reduce", fisher_type, mc_samples)] if reduced else both
    found, averages = _averages(model, x, y, likelihood_named(likelihood), recipes, seed)
    inputs = averages[0].states()
    gradients = inputs if reduced else averages[-1].states()
    factors = {}
    for name in (n for n in found.blocks if n in inputs):
        layer = found.blocks[name].layer
        positions = averages[0].rows[name] / averages[0].examples
        a = inputs[name]["input"] if reduced else input_factor(layer, inputs[name], positions)
        g = gradients.get(name, {}).get("gradient")
        if g is None:  # no gradient reaches it; or none was asked for, and the identity stands for it
            size = a.new_ones(layer.groups, layer.out_features)
            g = torch.diag_embed(size if fisher_type == "forward-only" else torch.zeros_like(size))
        factors[name] = KroneckerFactors(_single(a), _single(g))
    return factors


def tensor_normal_factors(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    *,
    likelihood: str | Likelihood,
    fisher_type: str = "mc",
    statistic: TensorStatistic = "batch",
    mc_samples: int = 1,
    seed: int = 0,
) -> dict[str, TensorFactors]:
    """Ũ_i = E[G⁽ⁱ⁾] / (c₀^{k−1} Π_{j≠i} d_j), G⁽ⁱ⁾ = mat_i(D) mat_i(D)ᵀ of every parameter tensor (Ren 2022, eq. 4.10,
    Alg. 15).

    D is the batch-mean pseudo-gradient ("batch") or each example's own ("per-example").

    Returns:
        {parameter name: `.factors` (Ũ_1, …, Ũ_k)}, float64, in the order of the model's parameters.
    """
    _choice("statistic", statistic, ("batch", "per-example"))
    if fisher_type == "forward-only":
        raise CurvlabError("fisher_type='forward-only' has no gradients", "tensor-normal factors are made of gradients")
    recipe = TensorNormalCurvature(statistic, fisher_type, mc_samples, largest_mode=sys.maxsize)
    _, (average,) = _averages(model, x, y, likelihood_named(likelihood), [recipe], seed)
    states, blocks = average.states(), {block.name: block for block in average.blocks}
    names = [name for name, _ in model.named_parameters() if name in states]
    return {name: TensorFactors(tuple(recipe.factors(blocks[name], states[name]))) for name in names}


def block_fisher(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    *,
    likelihood: str | Likelihood,
    fisher_type: str = "mc",
    mc_samples: int = 1,
    seed: int = 0,
) -> dict[str, Float[Tensor, "p p"]]:
    """F = 1/N Σ_n vec(DW_n) vec(DW_n)ᵀ of every layer, W̄ flattened row by row (Ren 2022, section 4.3.4): exact, dense,
    for small layers.

    Parameters that are used several times have their whole gradient in every block they belong to.

    Returns:
        {layer: (o·i, o·i)}, float64; i counts the 1 of a biased layer.
    """
    if fisher_type == "forward-only":
        raise CurvlabError("fisher_type='forward-only' has no gradients", "a Fisher block is made of gradients")
    recipe = FisherBlocks(fisher_type, mc_samples)
    found, (average,) = _averages(model, x, y, likelihood_named(likelihood), [recipe], seed)
    states = average.states()
    return {name: states[name]["fisher"] for name in found.blocks if name in states}


def ggn_product(
    model: nn.Module, x: Data, y: Tensor | None, vector: dict[str, Tensor], *, likelihood: str | Likelihood
) -> dict[str, Tensor]:
    """Gv = 1/N Σ_n J_nᵀ H_n J_n v: the generalised Gauss–Newton matrix of the mean loss times a vector of parameters
    (Grosse 2021, section 2.2).

    Args:
        model: the network; in train mode batch norm normalises by the batch, and its buffers are left as they were.
        x: one batch of inputs.
        y: tells the axis of the classes and which labels (-100) do not count: the Hessians do not depend on targets.
        vector: {parameter name: tensor}; parameters left out count as zero and are left out of the result.
        likelihood: whose Hessian H_n of ℓ_n at the output.

    Returns:
        {parameter name: tensor}, as in `vector`.

    Raises:
        CurvlabError: x is a loader, or `vector` does not fit the model's parameters.
    """
    if not isinstance(x, Tensor | tuple | Mapping):
        raise CurvlabError(f"x is a {type(x).__name__}", "a Gauss–Newton product is of one batch", "give its inputs")
    parameters = dict(model.named_parameters())
    unknown = sorted(set(vector) - set(parameters))
    if unknown:
        raise CurvlabError(f"the model has no parameter {unknown[0]!r}", "", "name the model's own parameters")
    for name, v in vector.items():
        if v.shape != parameters[name].shape:
            shapes = f"shape {tuple(v.shape)} for {name!r}, whose shape is {tuple(parameters[name].shape)}"
            raise CurvlabError(f"the vector has {shapes}", "", "give a tensor of the parameter's shape")
    args, kwargs = ((x,), {}) if isinstance(x, Tensor) else (x, {}) if isinstance(x, tuple) else ((), dict(x))
    call = ModelCall.of(model, args, kwargs)
    z, tangent = jacobian_product(model, call, vector)
    chosen = of_batch(likelihood_named(likelihood), z, y, named_inputs(args, kwargs))
    chosen.check(z)
    primal = {name: parameters[name].detach().requires_grad_() for name in vector}
    curved = chosen.hessian_product(z, tangent) / z.shape[0]
    with call.again(model), torch.enable_grad():  # buffers that the graph holds are put back when it ends
        output = output_tensor(torch.func.functional_call(model, primal, args, kwargs))
        pulled = torch.autograd.grad(output, list(primal.values()), curved, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(primal.items(), pulled, strict=True)}


def batches_of(x: Data, y: Tensor | None) -> Iterator[tuple[Inputs, Tensor | None]]:
    """(inputs, targets) batches from tensors (one batch) or from a loader, whose items may also be bare inputs."""
    if isinstance(x, Tensor | Mapping | tuple):
        yield x, y
        return
    if y is not None:
        raise CurvlabError("targets were given beside a loader", "a loader brings its own", "give y=None")
    for item in x:
        if isinstance(item, tuple | list) and len(item) == 2:
            yield item[0], item[1]
        elif isinstance(item, Tensor | Mapping):
            yield item, None
        else:
            raise CurvlabError(f"the loader gave a {type(item).__name__}", "it must give tensors or (inputs, targets)")


def _averages(
    model: nn.Module, x: Data, y: Tensor | None, chosen: Likelihood | None, recipes: Sequence[Curvature], seed: int
) -> tuple[Survey, list[DataAverage]]:
    """What the model is made of, and the averages of each recipe over all batches."""
    batches = batches_of(x, y)
    first = next(batches, None)
    if first is None:
        raise CurvlabError("the loader gave no batch")
    if batch_size(first[0]) == 0:
        raise CurvlabError("the data holds no examples")
    found = survey(model, first_examples(first[0], 2))
    if not found.blocks:
        reasons = "; ".join(f"{name or 'the model'}: {why}" for name, why in found.refused.items()) or "it has none"
        raise CurvlabError("no layer of the model could be recorded", reasons)
    last = recipes[-1]
    fisher_type = "forward-only" if chosen is None else last.fisher_type
    fisher = Fisher(chosen, fisher_type, last.mc_samples, torch.Generator().manual_seed(seed))
    averages = [DataAverage(recipe, recipe.profiled(found)) for recipe in recipes]
    recorder = ForwardBackward(
        model,
        "curvlab.curvature",
        found=found,
        output_gradients=fisher.backward,
        stream=True,
        hold_inputs=any(recipe.holds_inputs for recipe in recipes),
        dtype=next(model.parameters()).dtype,
    )
    together = Together(averages)
    with preserve(model):
        seed_generators(model, seed + 1)  # not the stream that pseudo-targets are drawn from
        for inputs, targets in chain([first], batches):
            together.end(recorder.batch(inputs, targets, fisher, together).examples)
    recorder.close()
    return found, averages


def _single(x: Tensor) -> Tensor:
    return x[0] if x.shape[0] == 1 else x


def _choice(what: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise CurvlabError(f"unknown {what} {value!r}", "", f"use one of {', '.join(choices)}")
    return value

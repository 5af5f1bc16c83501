"""Statistics of every layer over data: moments of inputs, K-FAC and tensor-normal factors, exact Fisher blocks."""

from __future__ import annotations

import sys

from torch import Tensor, nn

from curvlab.curvature.one_pass import Data, averages_of
from curvlab.curvature.results import FeatureStatistics, KroneckerFactors, TensorFactors, single
from curvlab.curvatures.block_fisher import FisherBlocks
from curvlab.curvatures.input_moments import InputMoments
from curvlab.curvatures.kronecker_factors import identity_factor, kronecker_factors, recipes, zero_factor
from curvlab.curvatures.tensor_normal import TensorNormalCurvature
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods import likelihood as likelihood_named
from curvlab.operators.operator import Kronecker
from curvlab.shapes import Float
from curvlab.statistics.tensor_normal import TensorStatistic


def feature_moments(model: nn.Module, x: Data) -> dict[str, FeatureStatistics]:
    """μ = 1/(NT) Σ a and M = 1/(NT) Σ aaᵀ of every layer's input, features without the bias's 1.

    Returns:
        {layer: `.mean` (d,), `.second_moment` (d, d), `.count`}, float64.

    Raises:
        CurvlabError: no layer could be recorded, or the data does not fit the model.
    """
    found, (average,) = averages_of(model, x, None, None, [InputMoments()], 0)
    averages = average.averages()
    states = {name: averages[name].state for name in found.blocks if name in averages}
    return {
        name: FeatureStatistics(single(state["mean"]), single(state["second"]), average.rows[name])
        for name, state in states.items()
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
    found, passed = averages_of(
        model, x, y, likelihood_named(likelihood), recipes(kfac_approx, fisher_type, mc_samples), seed
    )
    averages = [one.averages() for one in passed]
    factors = {}
    for name in (n for n in found.blocks if n in averages[0]):
        layer, positions = found.blocks[name].layer, passed[0].rows[name] / passed[0].examples
        a, g = kronecker_factors([one.get(name) for one in averages], positions)
        if g is None:
            g = identity_factor(layer) if fisher_type == "forward-only" else zero_factor(layer)
        factors[name] = KroneckerFactors(a, g)
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
        {parameter name: `.factors` (Ũ_1, …, Ũ_k), float64, `.operators` in the form they are kept in}, in the order of
        the model's parameters.
    """
    _choice("statistic", statistic, ("batch", "per-example"))
    if fisher_type == "forward-only":
        raise CurvlabError("fisher_type='forward-only' has no gradients", "tensor-normal factors are made of gradients")
    recipe = TensorNormalCurvature(statistic, fisher_type, mc_samples, largest_mode=sys.maxsize, keep_rows=True)
    _, (average,) = averages_of(model, x, y, likelihood_named(likelihood), [recipe], seed)
    averages = average.averages()
    found = [averages[name] for name, _ in model.named_parameters() if name in averages]
    operators = {one.block.name: one.operator for one in found}
    return {name: TensorFactors(found.factors) for name, found in operators.items() if isinstance(found, Kronecker)}


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
    found, (average,) = averages_of(model, x, y, likelihood_named(likelihood), [recipe], seed)
    averages = average.averages()
    return {name: averages[name].state["fisher"] for name in found.blocks if name in averages}


def _choice(what: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise CurvlabError(f"unknown {what} {value!r}", "", f"use one of {', '.join(choices)}")
    return value

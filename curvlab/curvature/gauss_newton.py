"""Gv: the generalised Gauss–Newton matrix of the mean loss times a vector of parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from curvlab.capture.jacobian import jacobian_product
from curvlab.capture.model_call import ModelCall
from curvlab.capture.model_inputs import named_inputs
from curvlab.capture.output import output_tensor
from curvlab.curvature.one_pass import Data
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods import likelihood as likelihood_named
from curvlab.likelihoods.of_batch import of_batch


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

"""Jv = ∂z/∂W v by forward-mode differentiation: one pass through the model, no graph and no backward (Grosse
2021, section 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.nn.attention import SDPBackend, sdpa_kernel

from curvlab.capture.model_call import ModelCall
from curvlab.capture.output import output_tensor
from curvlab.errors import CurvlabError
from curvlab.shapes import Float


@torch.no_grad()
def jacobian_product(
    model: nn.Module, call: ModelCall, vector: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "n ..."], Float[Tensor, "n ..."]]:
    """z and Jv of the model's output at a recorded call.

    The model runs as it did then, with the same dropout masks; its parameters, buffers (batch norm's statistics),
    mode, gradients and the global random state are left as they were. In train mode batch norm normalises by the
    batch, and J has the derivative of that.

    Args:
        model: the network, in the mode of the call.
        call: the recorded call.
        vector: {parameter name: tensor of its shape}; parameters left out count as zero.

    Returns:
        Two tensors of the output's shape, examples first; Jv is zero where the output does not depend on `vector`.

    Raises:
        CurvlabError: `vector` names no parameter of the model, or the model has an operation that torch cannot
            differentiate forwards.
    """
    parameters = dict(model.named_parameters())
    unknown = sorted(set(vector) - set(parameters))
    if unknown:
        raise CurvlabError(f"the model has no parameter {unknown[0]!r}", "", "name the model's own parameters")
    why = ""
    for kernels in (True, False):
        try:
            with call.again(model), _unfused(kernels), dual_level():
                dual = {name: make_dual(parameters[name].detach(), v) for name, v in vector.items()}  # type: ignore[no-untyped-call]
                output = output_tensor(torch.func.functional_call(model, dual, call.args, dict(call.kwargs)))
                z, tangent = unpack_dual(output)  # type: ignore[no-untyped-call]
                return z.detach(), torch.zeros_like(z) if tangent is None else tangent.detach()
        except NotImplementedError as error:
            why = str(error).split(" because")[0].splitlines()[0].rstrip(".")
    do = "use a method without Jacobian products"
    raise CurvlabError("the model cannot be differentiated forwards", why, do)


@contextmanager
def _unfused(kernels: bool) -> Iterator[None]:
    """Inside, torch's fused encoder layer and attention are off, and oneDNN and cuDNN too unless `kernels`.

    These, and the recurrent cells of oneDNN and cuDNN, have no forward derivative, what they fuse has; but convolutions
    have one, and are fastest with them.
    """
    backends: Any = torch.backends
    mha, cpu, cuda = backends.mha, backends.mkldnn, backends.cudnn
    before = mha.get_fastpath_enabled(), cpu.enabled, cuda.enabled
    mha.set_fastpath_enabled(False)
    cpu.enabled, cuda.enabled = kernels and before[1], kernels and before[2]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(before[0])
        cpu.enabled, cuda.enabled = before[1:]

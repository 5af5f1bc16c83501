"""A module adapter is a shortcut for the operation inside it: both give the same statistics under the same names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curvlab import curvature
from curvlab.capture.survey import survey

pytestmark = pytest.mark.usefixtures("float64")
N = 5


def with_a_forward_of_its_own(module: nn.Module) -> nn.Module:
    """The same module, of a class whose forward calls that of its parent: its type is not known any more."""
    kind = type(module)

    def forward(self: Any, *args: Any) -> Any:
        return kind.forward(self, *args)

    module.__class__ = type(f"Own{kind.__name__}", (kind,), {"forward": forward})
    return module


MODULES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3), (N, 4)),
    "linear at positions": (lambda: nn.Linear(4, 3, bias=False), (N, 6, 4)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1, groups=2), (N, 4, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding="valid"), (N, 2, 7, 6)),
    "transposed convolution": (lambda: nn.ConvTranspose2d(3, 2, 2, stride=2, output_padding=1), (N, 3, 4, 3)),
    "embedding": (lambda: nn.Embedding(7, 3, padding_idx=2), (N, 6)),
    "layer norm": (lambda: nn.LayerNorm((3, 4)), (N, 2, 3, 4)),
    "rms norm": (lambda: nn.RMSNorm(4), (N, 2, 4)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (N, 4, 3)),
    "batch norm": (lambda: nn.BatchNorm1d(4), (N, 4, 3)),
    "instance norm": (lambda: nn.InstanceNorm1d(4, affine=True), (N, 4, 3)),
    "prelu": (lambda: nn.PReLU(4), (N, 4, 3)),
}


def network(make: Any, *, own: bool) -> nn.Module:
    torch.manual_seed(0)
    module = make()
    for p in module.parameters():
        nn.init.normal_(p)
    return nn.Sequential(with_a_forward_of_its_own(module) if own else module, nn.Flatten(), nn.Tanh()).eval()


def inputs_of(make: Any, shape: tuple[int, ...]) -> Tensor:
    if isinstance(make(), nn.Embedding):
        return torch.randint(0, 7, shape)
    return torch.randn(shape)


@pytest.mark.parametrize(("make", "shape"), MODULES.values(), ids=MODULES.keys())
def test_they_give_the_same_factors_under_the_same_names(make: Any, shape: tuple[int, ...]) -> None:
    known, own, x = network(make, own=False), network(make, own=True), inputs_of(make, shape)
    y = torch.zeros_like(known(x))
    options: dict[str, Any] = {"likelihood": "gaussian", "fisher_type": "empirical"}
    assert not survey(own, x[:2]).refused
    found, expected = (curvature.kfac_factors(model, x, y, **options) for model in (own, known))
    assert list(found) == list(expected) == ["0"]
    assert torch.allclose(found["0"].input_factor, expected["0"].input_factor, rtol=1e-12, atol=1e-14)
    assert torch.allclose(found["0"].gradient_factor, expected["0"].gradient_factor, rtol=1e-12, atol=1e-14)
    tensors, others = (
        curvature.tensor_normal_factors(model, x, y, statistic="per-example", **options) for model in (own, known)
    )
    assert list(tensors) == list(others)
    for name, one in tensors.items():
        for factor, other in zip(one.factors, others[name].factors, strict=True):
            assert torch.allclose(factor, other, rtol=1e-11, atol=1e-14)

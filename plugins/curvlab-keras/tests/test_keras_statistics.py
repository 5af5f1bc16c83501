"""Statistics of Keras networks against dense autodiff, and against the equal torch network."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import curvlab_keras  # noqa: F401 - registers the adapters once Keras is imported
import keras
import pytest
import torch
from keras import layers as kl
from keras.src.backend.common import dtypes
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from curvlab.curvature import block_fisher, feature_moments, kfac_factors, tensor_normal_factors
from curvlab.formats.keras.module import KerasModule

N, CLASSES = 4, 3


@pytest.fixture(autouse=True)
def _double_precision(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keras on torch rounds float64 to float32 in its operations; here it must not, for oracles in float64."""
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


def images() -> tuple[KerasModule, Tensor, Tensor]:
    made = keras.Sequential(
        [
            keras.Input((8, 8, 2), dtype="float64"),
            kl.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv"),
            kl.BatchNormalization(name="norm"),
            kl.SeparableConv2D(5, 3, depth_multiplier=2, name="separable"),
            kl.GlobalAveragePooling2D(),
            kl.Dense(CLASSES, name="head"),
        ]
    )
    _randomise(made)
    return KerasModule(made), torch.randn(N, 8, 8, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 1])


def sequences() -> tuple[KerasModule, Tensor, Tensor]:
    made = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            kl.Embedding(7, 3, name="words"),
            kl.Bidirectional(kl.LSTM(2, return_sequences=True), name="both"),
            kl.GRU(3, name="memory"),
            kl.LayerNormalization(name="norm"),
            kl.Dense(CLASSES, name="head"),
        ]
    )
    _randomise(made)
    return KerasModule(made), torch.randint(0, 7, (N, 5)), torch.tensor([0, 1, 2, 1])


def _randomise(made: Any) -> None:
    for variable in made.variables:
        if variable.value.is_floating_point():
            drawn = torch.randn(variable.shape, dtype=torch.float64) * 0.5
            variable.assign(drawn.abs() + 0.5 if "variance" in variable.name else drawn)


NETWORKS = {"images": images, "sequences": sequences}


def gradients(network: KerasModule, x: Tensor, y: Tensor) -> list[dict[str, Tensor]]:
    parameters = dict(network.named_parameters())
    rows = []
    for n in range(N):
        loss = cross_entropy(network(x[n : n + 1]), y[n : n + 1])
        rows.append(dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)))
    return rows


@pytest.mark.parametrize("name", NETWORKS)
def test_block_fisher_is_that_of_autograd(name: str) -> None:
    network, x, y = NETWORKS[name]()
    blocks = block_fisher(network, x, y, likelihood="categorical", fisher_type="empirical")
    rows = gradients(network, x, y)
    assert len(blocks) == {"images": 5, "sequences": 10}[name]
    for block, matrix in blocks.items():
        layer = block.removesuffix(".kernel")
        if f"{layer}.kernel" not in rows[0] or f"{layer}.bias" not in rows[0]:
            continue
        # W̄ is [Wᵀ b]: outputs are rows, features with channels before kernel positions.
        flat = torch.stack(
            [
                torch.cat([r[f"{layer}.kernel"].movedim((-1, -2), (0, 1)).flatten(1), r[f"{layer}.bias"][:, None]], 1)
                for r in rows
            ]
        ).flatten(1)
        torch.testing.assert_close(matrix, flat.mT @ flat / N, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_tensor_normal_factors_are_those_of_autograd(name: str) -> None:
    network, x, y = NETWORKS[name]()
    found = tensor_normal_factors(
        network, x, y, likelihood="categorical", fisher_type="empirical", statistic="per-example"
    )
    rows = gradients(network, x, y)
    assert set(found) == set(rows[0])
    for parameter, factors in found.items():
        d = torch.stack([r[parameter] for r in rows])
        if d.ndim > 3:
            d = d.flatten(1, -3)  # kernel positions are one mode
        size = d[0].numel()
        contractions = []
        for axis in range(1, d.ndim):
            unfolded = d.movedim(axis, 1).reshape(N, d.shape[axis], -1)
            contractions.append(torch.einsum("nai,nbi->ab", unfolded, unfolded) / N)
        k = len(contractions)
        c0 = (contractions[0].trace() / size) ** (1 / k)
        assert len(factors.factors) == k
        for factor, contraction in zip(factors.factors, contractions, strict=True):
            wanted = contraction / (c0 ** (k - 1) * size / len(contraction))
            torch.testing.assert_close(factor, wanted, rtol=1e-8, atol=1e-12)


class Equal(nn.Module):
    """The network of `images`, written in torch, with Keras' weights turned."""

    def __init__(self, network: KerasModule) -> None:
        super().__init__()
        p = {name: t.detach() for name, t in (*network.named_parameters(), *network.named_buffers())}
        self.conv = nn.Conv2d(2, 4, 3, stride=2).double()
        self.norm = nn.BatchNorm2d(4, eps=1e-3).double()
        self.depthwise = nn.Conv2d(4, 8, 3, groups=4, bias=False).double()
        self.pointwise = nn.Conv2d(8, 5, 1).double()
        self.head = nn.Linear(5, CLASSES).double()
        own = {
            "conv.weight": p["conv.kernel"].permute(3, 2, 0, 1),
            "conv.bias": p["conv.bias"],
            "norm.weight": p["norm.gamma"],
            "norm.bias": p["norm.beta"],
            "norm.running_mean": p["norm.moving_mean"],
            "norm.running_var": p["norm.moving_variance"],
            "norm.num_batches_tracked": torch.tensor(0),
            "depthwise.weight": p["separable.depthwise_kernel"].permute(2, 3, 0, 1).reshape(8, 1, 3, 3),
            "pointwise.weight": p["separable.pointwise_kernel"].permute(3, 2, 0, 1),
            "pointwise.bias": p["separable.bias"],
            "head.weight": p["head.kernel"].mT,
            "head.bias": p["head.bias"],
        }
        self.load_state_dict(own)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        # "same" with a stride of two on eight pixels pads one pixel, at the end.
        x = nn.functional.pad(x.movedim(-1, 1), (0, 1, 0, 1))
        x = self.norm(self.conv(x).relu())
        z: Tensor = self.head(self.pointwise(self.depthwise(x)).mean((2, 3)))
        return z


def test_the_equal_torch_network_has_the_same_moments_and_factors() -> None:
    network, x, y = images()
    equal = Equal(network)
    torch.testing.assert_close(network(x), equal(x), rtol=0, atol=1e-10)
    names = {
        "conv.kernel": "conv",
        "norm": "norm",
        "separable.depthwise_kernel": "depthwise",
        "separable.pointwise_kernel": "pointwise",
        "head.kernel": "head",
    }
    mine, own = feature_moments(network, x), feature_moments(equal, x)
    kfac = [kfac_factors(m, x, y, likelihood="categorical", fisher_type="type-2") for m in (network, equal)]
    assert set(mine) == set(names)
    for keras_name, name in names.items():
        torch.testing.assert_close(mine[keras_name].mean, own[name].mean, rtol=0, atol=1e-10)
        torch.testing.assert_close(mine[keras_name].second_moment, own[name].second_moment, rtol=0, atol=1e-10)
        for which in ("input_factor", "gradient_factor"):
            a, b = getattr(kfac[0][keras_name], which), getattr(kfac[1][name], which)
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)

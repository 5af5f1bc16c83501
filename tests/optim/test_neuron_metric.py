"""The metric of a neuron by both of its routes against JᵀJ of the module itself, and the preconditioner against W̃W̃ᵀ."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from curvlab.analyses.whitening import whitening
from curvlab.capture.sample import Call, Sample
from curvlab.layers.layer import Layer, adapt
from curvlab.layers.linear import TransposedLinearLayer
from curvlab.layers.registered import load_layers
from curvlab.operators.incomplete_cholesky import incomplete_cholesky, precondition
from curvlab.operators.operator import Dense
from curvlab.operators.product import product
from curvlab.optim.lnb.neurons import by_inputs, by_moments, moments_are_cheaper

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

MODULES: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
    ("linear", lambda: nn.Linear(4, 3), (5, 4)),
    ("linear-no-bias", lambda: nn.Linear(4, 3, bias=False), (5, 4)),
    ("linear-positions", lambda: nn.Linear(4, 3), (5, 2, 3, 4)),
    ("conv1d", lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect"), (4, 2, 5)),
    ("conv2d", lambda: nn.Conv2d(2, 4, 3, padding=1), (3, 2, 3, 4)),
    ("conv2d-stride", lambda: nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), bias=False), (3, 2, 4, 5)),
    ("conv2d-dilation", lambda: nn.Conv2d(2, 3, 2, dilation=2, padding=1), (3, 2, 4, 4)),
    ("conv2d-groups", lambda: nn.Conv2d(4, 6, 3, groups=2, padding="same"), (3, 4, 3, 4)),
    ("conv2d-same-even", lambda: nn.Conv2d(2, 3, (2, 4), padding="same"), (3, 2, 5, 4)),
    ("conv2d-depthwise", lambda: nn.Conv2d(3, 6, 2, groups=3), (3, 3, 3, 4)),
    ("conv2d-circular", lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (3, 2, 3, 4)),
    ("conv3d", lambda: nn.Conv3d(2, 3, 2, padding=1), (3, 2, 2, 2, 3)),
    (
        "deconv2d",
        lambda: nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=(1, 2)),
        (3, 2, 2, 3),
    ),
    ("deconv1d", lambda: nn.ConvTranspose1d(3, 2, 2, stride=2, dilation=2, bias=False), (4, 3, 3)),
    ("embedding", lambda: nn.Embedding(6, 3, padding_idx=0), (5, 4)),
    ("layer-norm", lambda: nn.LayerNorm((2, 3)), (4, 5, 2, 3)),
    ("group-norm", lambda: nn.GroupNorm(2, 4), (3, 4, 2, 3)),
    ("batch-norm", lambda: nn.BatchNorm2d(3).eval(), (4, 3, 2, 2)),
    ("prelu", lambda: nn.PReLU(3), (4, 3, 2)),
]
each = pytest.mark.parametrize(("make", "shape"), [m[1:] for m in MODULES], ids=[m[0] for m in MODULES])


def seen(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, Layer, Tensor, Sample]:
    load_layers()
    module = make()
    x = torch.randint(0, 6, shape) if isinstance(module, nn.Embedding) else torch.randn(shape) + 0.5
    layer = adapt(module)
    assert isinstance(layer, Layer)
    rows = module(x).numel() // (layer.groups * layer.out_features)
    return module, layer, x, Sample([Call(layer, layer.prepare(x), 0, rows)], shape[0], torch.float64)


def jacobians(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """∂(all outputs)/∂θ of the module, by autograd."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    found = torch.func.jacrev(lambda p: torch.func.functional_call(module, p, (x,)).flatten())(parameters)
    if isinstance(module, nn.Embedding):  # torch gives the padding row no gradient in a backward, jacrev does
        found["weight"][:, module.padding_idx] = 0
    return found


@each
def test_both_routes_are_the_jacobian_times_itself(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    module, layer, x, sample = seen(make, shape)
    jacobian, rows = jacobians(module, x), sample.calls[0].rows
    theta = {name: torch.randn_like(p) for name, p in module.named_parameters()}
    pushed = sum(torch.tensordot(jacobian[name], t, t.ndim) for name, t in theta.items())
    wanted = {name: torch.tensordot(pushed, j, 1) / rows for name, j in jacobian.items()}
    for route in (by_inputs, by_moments):
        metric = route(sample).metric
        assert metric is not None
        assert metric.rows == rows
        found = layer.split(product(metric, layer.matrix(theta)))
        for name, w in wanted.items():
            torch.testing.assert_close(found[name], w, rtol=1e-10, atol=1e-12)


@each
def test_both_routes_see_the_moments_of_the_features(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    _, layer, _, sample = seen(make, shape)
    features = sample.features.flatten(1, 2)
    for route in (by_inputs, by_moments):
        sums = route(sample).sums
        assert sums.rows == features.shape[1]
        torch.testing.assert_close(sums.total, features.sum(1), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(sums.second, features.square().sum(1), rtol=1e-10, atol=1e-12)
    dense = by_moments(sample).metric
    assert dense is not None
    ones = features.new_ones(*features.shape[:2], int(layer.biased))
    rows = torch.cat([features, ones], dim=2)
    torch.testing.assert_close(dense.matrix(), rows.mT @ rows / rows.shape[1], rtol=1e-10, atol=1e-12)


def test_a_matrix_stored_the_other_way_round() -> None:
    weight, bias, x = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3)), torch.randn(7, 4)
    layer = TransposedLinearLayer(weight, bias)
    sample, rows = Sample([Call(layer, x, 0, 7)], 7, torch.float64), torch.cat([x, torch.ones(7, 1)], dim=1)
    w = torch.randn(1, 3, 5)
    for route in (by_inputs, by_moments):
        metric = route(sample).metric
        assert metric is not None
        torch.testing.assert_close(product(metric, w)[0], w[0] @ (rows.T @ rows / 7))


def test_batches_of_a_step_add_up_on_any_mixture_of_routes() -> None:
    layer = adapt(nn.Conv2d(2, 3, 2))
    assert isinstance(layer, Layer)
    x, w = torch.randn(6, 2, 4, 4), torch.randn(1, 3, 9)
    parts = [
        Sample([Call(layer, x[rows], 0, 9 * len(x[rows]))], len(x[rows]), torch.float64)
        for rows in (slice(2), slice(2, 6))
    ]
    whole = by_moments(Sample([Call(layer, x, 0, 54)], 6, torch.float64))
    assert whole.metric is not None
    for routes in ((by_inputs, by_inputs), (by_inputs, by_moments), (by_moments, by_moments)):
        joined = routes[0](parts[0]).joined(routes[1](parts[1]))
        assert joined.metric is not None
        torch.testing.assert_close(product(joined.metric, w), product(whole.metric, w))
        torch.testing.assert_close(vars(joined.sums), vars(whole.sums))


def test_the_product_takes_several_vectors_at_once() -> None:
    _, _, _, sample = seen(lambda: nn.Conv2d(2, 3, 2), (3, 2, 3, 4))
    metric = by_inputs(sample).metric
    assert metric is not None
    vectors = torch.randn(4, 1, 3, 9)
    torch.testing.assert_close(product(metric, vectors), torch.stack([product(metric, v) for v in vectors]))
    with pytest.raises(ValueError, match="written out"):
        metric.matrix()


def test_the_cheaper_route() -> None:
    """Many rows of as many outputs as inputs are summed up; a wide input of few outputs, or of few rows, is not."""
    wide, narrow, small = adapt(nn.Linear(800, 800)), adapt(nn.Linear(2000, 4)), adapt(nn.Linear(5, 4))
    assert isinstance(wide, Layer)
    assert isinstance(narrow, Layer)
    assert isinstance(small, Layer)
    assert moments_are_cheaper(wide, 1000, 3)
    assert not moments_are_cheaper(narrow, 1000, 3)
    assert not moments_are_cheaper(wide, 40, 3)
    assert moments_are_cheaper(small, 40, 3)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_the_preconditioner_is_the_incomplete_factor_times_its_transpose(biased: bool, ridge: float) -> None:
    a = torch.randn(50, 4) @ torch.randn(4, 4) + torch.tensor([3.0, -1.0, 0.0, 0.5])
    mean, square = a.mean(0), a.square().mean(0)
    operator = incomplete_cholesky(mean[None], square[None], biased, ridge)
    if biased:
        root = (a.var(0, correction=0) + ridge).rsqrt()
        factor = torch.zeros(5, 5)
        factor[:4, :4], factor[4, :4], factor[4, 4] = torch.diag(root), -mean * root, 1
    else:
        factor = torch.diag((square + ridge).rsqrt())
    wanted, w = factor @ factor.T, torch.randn(1, 3, len(factor))
    torch.testing.assert_close(precondition(operator, w)[0], w[0] @ wanted)
    torch.testing.assert_close(product(operator, w[0]), w[0] @ wanted)


def test_conjugate_gradients_see_the_spectrum_that_the_analysis_calls_lnb() -> None:
    a = torch.randn(200, 6) * torch.logspace(-2, 2, 6) + torch.linspace(-50, 50, 6)
    mean, second = a.mean(0), a.T @ a / len(a)
    table, _, _ = whitening(Dense(second), mean, True, len(a))
    rows = torch.cat([a, torch.ones(200, 1)], dim=1)
    preconditioner = product(incomplete_cholesky(mean[None], second.diagonal()[None], True), torch.eye(7))
    values = torch.linalg.eigvals(preconditioner @ (rows.T @ rows / 200)).real
    assert table.lnb == pytest.approx((values.max() / values.min()).item(), rel=1e-6)
    assert table.identity is not None
    assert table.identity > 1e4 * table.lnb


def test_a_constant_feature_is_left_to_the_bias() -> None:
    a = torch.randn(50, 3)
    a[:, 1] = 0.7
    operator = incomplete_cholesky(a.mean(0)[None], a.square().mean(0)[None], True)
    assert operator.inverse[0, 1] == 0
    assert bool((operator.inverse[0, [0, 2]] > 0).all())
    assert incomplete_cholesky(a.mean(0)[None], a.square().mean(0)[None], True, 0.5).inverse[0, 1] == pytest.approx(2)

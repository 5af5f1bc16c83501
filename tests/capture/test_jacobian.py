"""Jv by forward mode against Jacobians by plain autograd, one output at a time; what it must leave alone."""

from __future__ import annotations

import copy

import oracles
import pytest
import torch
from cases import CASES, Case
from torch import Tensor, nn

from curvlab.capture.jacobian import jacobian_product
from curvlab.capture.model_call import ModelCall
from curvlab.errors import CurvlabError

pytestmark = pytest.mark.usefixtures("float64")


def recorded(model: nn.Module, *args: object, **kwargs: object) -> tuple[Tensor, ModelCall]:
    """The model's output, and its call as a pre-hook notes it."""
    calls = []
    handle = model.register_forward_pre_hook(lambda m, a, k: calls.append(ModelCall.of(m, a, k)), with_kwargs=True)
    output = model(*args, **kwargs)
    handle.remove()
    return output, calls[0]


def vector_for(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_product_with_the_jacobian(case: Case) -> None:
    model, x, _ = case.build()
    z, jacobian = oracles.jacobians(model, x)
    vector = vector_for(model)
    if case.name == "embedding":
        vector["0.weight"][0] = 0  # reverse mode gives the padding row no gradient, though the output depends on it
    _, call = recorded(model, x)
    found, product = jacobian_product(model, call, vector)
    torch.testing.assert_close(found, z)
    wanted = sum(torch.einsum("nk...,...->nk", jacobian[name], v) for name, v in vector.items())
    torch.testing.assert_close(product, wanted.reshape(z.shape), rtol=1e-9, atol=1e-11)


class Noisy(nn.Module):
    """Batch norm, dropout and a keyword argument."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.drop, self.b = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
        return {"logits": self.b(self.drop(torch.tanh(self.norm(self.a(x)))) * scale)}


def test_dropout_masks_and_batch_statistics_are_those_of_the_call() -> None:
    """Finite differences of the very call: central, second order, so about 1e-8 of the third derivative."""
    model, x = Noisy().train(), torch.randn(8, 4)
    vector = vector_for(model)
    output, call = recorded(model, x, scale=2.0)
    torch.rand(7)  # the generator has moved on
    found, product = jacobian_product(model, call, vector)
    torch.testing.assert_close(found, output["logits"].detach(), rtol=0, atol=0)
    moved = []
    for sign in (1.0, -1.0):
        other = copy.deepcopy(model)
        for name, p in other.named_parameters():
            p.data += sign * 1e-4 * vector[name]
        with call.again(other):
            moved.append(other(x, scale=2.0)["logits"].detach())
    torch.testing.assert_close(product, (moved[0] - moved[1]) / 2e-4, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_nothing_is_changed(train: bool) -> None:
    model, x = Noisy().train(train), torch.randn(8, 4)
    _, call = recorded(model, x)
    model(x)["logits"].sum().backward()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    z, product = jacobian_product(model, call, vector_for(model))
    assert not z.requires_grad
    assert not product.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True) if p.grad is not None)
    assert model.training is train
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled
    assert torch.backends.cudnn.enabled


def test_buffers_and_random_state_are_restored_when_the_model_raises() -> None:
    model, x = Noisy(), torch.randn(8, 4)
    _, call = recorded(model, x)
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.b.register_forward_pre_hook(lambda *_: 1 / 0)  # after batch norm and dropout
    with pytest.raises(ZeroDivisionError), call.again(model):
        model(torch.randn(8, 4))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("train", [True, False])
def test_transformers_and_recurrent_networks_have_products_too(train: bool) -> None:
    """torch's fused kernels for them have no forward derivative; the answer is that of the unfused ones."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.cell(x)[0][:, -1])

    block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    for model in (nn.Sequential(block, nn.Flatten(), nn.Linear(12, 3)), Recurrent()):
        model.train(train)
        x = torch.randn(5, 3, 4)
        z, jacobian = oracles.jacobians(model, x)
        vector = vector_for(model)
        _, call = recorded(model, x)
        found, product = jacobian_product(model, call, vector)
        wanted = sum(torch.einsum("nk...,...->nk", jacobian[name], v) for name, v in vector.items())
        torch.testing.assert_close(found, z)
        torch.testing.assert_close(product, wanted, rtol=1e-9, atol=1e-11)


def test_fused_recurrent_kernels_in_single_precision() -> None:
    """oneDNN takes over in float32."""
    model, x = nn.LSTM(4, 4, batch_first=True).float(), torch.randn(5, 3, 4).float()
    vector = {name: v.float() for name, v in vector_for(model).items()}
    with torch.no_grad():
        _, call = recorded(model, x)
    _, product = jacobian_product(model, call, vector)
    wide = copy.deepcopy(model).double()
    _, wide_call = recorded(wide, x.double())
    _, wanted = jacobian_product(wide, wide_call, {name: v.double() for name, v in vector.items()})
    torch.testing.assert_close(product.double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_call_is_repeated_under_its_autocast() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).float(), torch.randn(8, 4).float()
    vector = {name: v.float() for name, v in vector_for(model).items()}
    with torch.autocast("cpu", torch.bfloat16):
        output, call = recorded(model, x)
    z, product = jacobian_product(model, call, vector)
    assert z.dtype == product.dtype == torch.bfloat16
    assert torch.equal(z, output)
    _, plain = recorded(model, x)
    with torch.autocast("cpu", torch.bfloat16):  # a step under autocast does not change a call without it
        z, wanted = jacobian_product(model, plain, vector)
    assert wanted.dtype == torch.float32
    torch.testing.assert_close(product.float(), wanted, rtol=0.1, atol=0.1)  # bfloat16 has 8 bits


def test_weights_that_moved_are_cast_anew() -> None:
    """Autocast keeps its casts of weights until its block ends: a step inside one must not see those of before."""
    model, x = nn.Linear(4, 3).float(), torch.randn(8, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        output, call = recorded(model, x)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(2)
        with call.again(model):
            assert torch.equal(model(x), 2 * output)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.5)
        assert torch.equal(model(x), output)


def test_parameters_left_out_count_as_zero() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(5, 4)
    _, call = recorded(model, x)
    vector = {"2.bias": torch.tensor([1.0, -2.0])}
    torch.testing.assert_close(jacobian_product(model, call, vector)[1], torch.tensor([1.0, -2.0]).expand(5, 2))
    model.unused = nn.Parameter(torch.ones(2))
    assert torch.equal(jacobian_product(model, call, {"unused": torch.ones(2)})[1], torch.zeros(5, 2))
    assert torch.equal(jacobian_product(model, call, {})[1], torch.zeros(5, 2))


def test_what_cannot_be_done_is_an_error_of_one_sentence() -> None:
    class Blackbox(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            return g

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return Blackbox.apply(self.a(x))

    model, x = Model(), torch.randn(5, 4)
    _, call = recorded(model, x)
    with pytest.raises(CurvlabError, match="the model cannot be differentiated forwards") as caught:
        jacobian_product(model, call, vector_for(model))
    assert "\n" not in str(caught.value)
    with pytest.raises(CurvlabError, match="no parameter 'nowhere'"):
        jacobian_product(model, call, {"nowhere": torch.ones(1)})

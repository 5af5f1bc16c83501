"""The statistics of recurrent maps against oracles: numpy with complex-step derivatives, and autograd."""

from __future__ import annotations

from collections.abc import Iterator

import curvlab_recurrent  # noqa: F401 - registers the adapters
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from curvlab.curvature import block_fisher, feature_moments, kfac_factors, tensor_normal_factors

Array = NDArray[np.complex128]
N, T, IN, HIDDEN, OUT = 3, 4, 2, 3, 2
MAPS = ("ih", "hh")


class Last(nn.Module):
    """A linear readout of the last step."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(rnn.hidden_size, OUT)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(self.rnn(x)[0][:, -1])
        return z


def network(base: type[nn.RNNBase], **options: object) -> tuple[Last, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Last(base(IN, HIDDEN, batch_first=True, **options)).double()
    return model, torch.randn(N, T, IN, dtype=torch.float64), torch.tensor([0, 1, 1])


def sigmoid(s: Array) -> Array:
    return 1 / (1 + np.exp(-s))


def by_hand(model: Last, x: Array, shift: dict[str, Array]) -> tuple[Array, Array]:
    """Readout, and the h that each step begins with, where shift[map][t] is added to s[t] = W̄ ā[t] of a map."""
    p = {name: t.detach().numpy() for name, t in model.named_parameters()}
    h, c, begins = np.zeros(HIDDEN, complex), np.zeros(HIDDEN, complex), []
    for t in range(T):
        begins.append(h)
        a = p["rnn.weight_ih_l0"] @ x[t] + p["rnn.bias_ih_l0"] + shift["ih"][t]
        b = p["rnn.weight_hh_l0"] @ h + p["rnn.bias_hh_l0"] + shift["hh"][t]
        if isinstance(model.rnn, nn.LSTM):
            i, f, g, o = np.split(a + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
            z = sigmoid(az + bz)
            h = (1 - z) * np.tanh(an + sigmoid(ar + br) * bn) + z * h
    return p["head.weight"] @ h + p["head.bias"], np.stack(begins)


def output_gradients_by_hand(model: Last, x: Array, rows: int) -> dict[str, Array]:
    """∂z_k/∂s[t] of each map, by complex steps: (OUT, T, rows)."""
    output_gradients = {name: np.zeros((OUT, T, rows)) for name in MAPS}
    for name in MAPS:
        for t, row in np.ndindex(T, rows):
            shift = {m: np.zeros((T, rows), complex) for m in MAPS}
            shift[name][t, row] = 1e-30j
            output_gradients[name][:, t, row] = by_hand(model, x, shift)[0].imag / 1e-30
    return output_gradients


@pytest.mark.parametrize(("base", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_kfac_factors_are_those_of_the_recurrence_by_hand(base: type[nn.RNNBase], gates: int) -> None:
    model, x, _ = network(base)
    rows = gates * HIDDEN
    still = {m: np.zeros((T, rows), complex) for m in MAPS}
    begins = np.stack([by_hand(model, one, still)[1].real for one in x.numpy()])
    output_gradients = [output_gradients_by_hand(model, one, rows) for one in x.numpy()]
    factors = kfac_factors(model, x, likelihood="gaussian", fisher_type="type-2")
    moments = feature_moments(model, x)
    for name, inputs in (("ih", x.numpy()), ("hh", begins)):
        flat = np.concatenate([inputs.reshape(N * T, -1), np.ones((N * T, 1))], axis=1)
        a = flat.T @ flat / N
        for k in range(gates):
            share = np.stack([s[name] for s in output_gradients]).reshape(-1, gates, HIDDEN)[:, k]  # rows n, output, t
            g = share.T @ share / (N * T)
            np.testing.assert_allclose(factors[f"rnn.{name}_l0"].input_factor[k], a, rtol=0, atol=1e-12)
            np.testing.assert_allclose(factors[f"rnn.{name}_l0"].gradient_factor[k], g, rtol=0, atol=1e-12)
            np.testing.assert_allclose(moments[f"rnn.{name}_l0"].mean[k], flat[:, :-1].mean(0), rtol=0, atol=1e-12)


def gradients(model: Last, x: Tensor, y: Tensor, fisher_type: str) -> Iterator[dict[str, Tensor]]:
    """Per-example gradients, of every output ("type-2" of a gaussian) or of the cross entropy ("empirical")."""
    for n in range(N):
        z = model(x[n : n + 1])
        losses = z[0].unbind() if fisher_type == "type-2" else [cross_entropy(z, y[n : n + 1])]
        for loss in losses:
            grads = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            yield dict(zip((name for name, _ in model.named_parameters()), grads, strict=True))


CASES = {
    "lstm": (nn.LSTM, {"bidirectional": True}, ("ih_l0", "hh_l0", "ih_l0_reverse", "hh_l0_reverse")),
    "lstm-projected": (nn.LSTM, {"proj_size": 2, "num_layers": 2}, ("ih_l0", "hr_l0", "hh_l1", "hr_l1")),
    "gru": (nn.GRU, {"num_layers": 2}, ("ih_l0", "hh_l0", "ih_l1", "hh_l1")),
    "rnn": (nn.RNN, {"bias": False}, ("ih_l0", "hh_l0")),
}


def case(name: str) -> tuple[Last, Tensor, Tensor, tuple[str, ...]]:
    base, options, maps = CASES[name]
    model, x, y = network(base, **options)
    width = model.rnn(x)[0].shape[-1]
    model.head = nn.Linear(width, OUT).double()
    return model, x, y, maps


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("likelihood", "fisher_type"), [("gaussian", "type-2"), ("categorical", "empirical")])
def test_block_fisher_is_that_of_autograd(name: str, likelihood: str, fisher_type: str) -> None:
    model, x, y, maps = case(name)
    blocks = block_fisher(model, x, y, likelihood=likelihood, fisher_type=fisher_type)
    rows = list(gradients(model, x, y, fisher_type))
    for short in maps:
        weight, bias = f"rnn.weight_{short}", f"rnn.bias_{short}"
        # W̄ of all gates under each other is [W b] row by row, as stored.
        flat = torch.stack(
            [torch.cat([r[weight], *([r[bias][:, None]] if bias in r else [])], dim=1).flatten() for r in rows]
        )
        torch.testing.assert_close(blocks[f"rnn.{short}"], flat.mT @ flat / N, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_tensor_normal_factors_are_those_of_autograd(name: str) -> None:
    model, x, y, maps = case(name)
    found = tensor_normal_factors(
        model, x, y, likelihood="categorical", fisher_type="empirical", statistic="per-example"
    )
    rows = list(gradients(model, x, y, "empirical"))
    for parameter in (f"rnn.weight_{short}" for short in maps):
        d = torch.stack([r[parameter] for r in rows])
        contractions = (torch.einsum("nai,nbi->ab", d, d) / N, torch.einsum("noa,nob->ab", d, d) / N)
        size = d[0].numel()
        c0 = (contractions[0].trace() / size) ** 0.5
        for factor, contraction in zip(found[parameter].factors, contractions, strict=True):
            # The last step of the reverse direction begins with h = 0 and is all that the readout sees: no gradient.
            wanted = contraction / (c0 * size / len(contraction)) if c0 > 0 else contraction
            torch.testing.assert_close(factor, wanted, rtol=1e-10, atol=1e-14)

"""Padded batches: statistics and losses are those of the same examples without their padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import curvlab
from curvlab.curvature import feature_moments, ggn_product, kfac_factors, tensor_normal_factors
from curvlab.data.load import load as load_data
from curvlab.data.tokens import IGNORED, Tokens, keyword_inputs
from curvlab.errors import CurvlabError, DataError
from curvlab.likelihoods import Bernoulli, Categorical, Gaussian
from curvlab.likelihoods.masked import Masked

N, T, VOCABULARY = 7, 5, 11
LENGTHS = torch.tensor([5, 3, 1, 4, 5, 2, 3])


class Reader(nn.Module):
    """A network that attends to what is no padding, with an output for every position."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.norm = nn.LayerNorm(6)
        self.key, self.value = nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.embed(input_ids))
        scores = (self.key(x) @ x.mT).masked_fill(attention_mask[:, None] == 0, -torch.inf)
        return {"hidden": x, "logits": self.head((scores.softmax(-1) @ self.value(x)).tanh())}


@pytest.fixture
def padded(float64: object) -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    torch.manual_seed(3)
    ids = torch.randint(1, VOCABULARY, (N, T))
    mask = (torch.arange(T) < LENGTHS[:, None]).long()
    labels = torch.randint(0, 4, (N, T))
    labels[torch.rand(N, T) < 0.3] = IGNORED
    return Reader().eval(), {"input_ids": ids * mask, "attention_mask": mask}, labels.masked_fill(mask == 0, IGNORED)


def without_padding(inputs: dict[str, Tensor], labels: Tensor) -> list[tuple[dict[str, Tensor], Tensor]]:
    """One batch per example, cut to its length."""
    return [
        ({key: values[n : n + 1, :length] for key, values in inputs.items()}, labels[n : n + 1, :length])
        for n, length in enumerate(LENGTHS.tolist())
    ]


def test_moments_are_those_of_the_examples_without_padding(padded: Any) -> None:
    model, inputs, labels = padded
    found, wanted = feature_moments(model, inputs), feature_moments(model, without_padding(inputs, labels))
    assert set(found) == {"embed", "norm", "key", "value", "head"}
    for name in found:
        assert found[name].count == wanted[name].count == int(LENGTHS.sum())
        torch.testing.assert_close(found[name].mean, wanted[name].mean)
        torch.testing.assert_close(found[name].second_moment, wanted[name].second_moment)


@pytest.mark.parametrize("fisher_type", ["empirical", "type-2"])
@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_kfac_factors_are_those_of_the_examples_without_padding(
    padded: Any, fisher_type: str, kfac_approx: str
) -> None:
    model, inputs, labels = padded
    options: Any = {"likelihood": "categorical", "fisher_type": fisher_type, "kfac_approx": kfac_approx}
    found = kfac_factors(model, inputs, labels, **options)
    wanted = kfac_factors(model, without_padding(inputs, labels), **options)
    for name in wanted:
        torch.testing.assert_close(found[name].input_factor, wanted[name].input_factor)
        torch.testing.assert_close(found[name].gradient_factor, wanted[name].gradient_factor)
        assert wanted[name].gradient_factor.abs().max() > 0


def test_tensor_normal_factors_are_those_of_the_examples_without_padding(padded: Any) -> None:
    model, inputs, labels = padded
    options: Any = {"likelihood": "categorical", "fisher_type": "empirical", "statistic": "per-example"}
    found = tensor_normal_factors(model, inputs, labels, **options)
    wanted = tensor_normal_factors(model, without_padding(inputs, labels), **options)
    for name in wanted:
        for ours, theirs in zip(found[name].factors, wanted[name].factors, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_gradient_is_torch_s_with_the_same_labels_ignored(padded: Any) -> None:
    """Σ over what counts of cross_entropy(ignore_index=-100), by autograd; the block's trace is Σ‖DW_n‖²/N."""
    model, inputs, labels = padded
    factors = tensor_normal_factors(
        model, inputs, labels, likelihood="categorical", fisher_type="empirical", statistic="per-example"
    )
    total = 0.0
    for n in range(N):
        one = {key: values[n : n + 1] for key, values in inputs.items()}
        loss = nn.functional.cross_entropy(model(**one)["logits"][0], labels[n], ignore_index=IGNORED, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, model.head.weight)
        total += float(gradient.square().sum()) / N
    rows, columns = model.head.weight.shape
    u = factors["head.weight"].factors
    torch.testing.assert_close(float(u[0].trace()) * columns ** (2 - 1) / 1.0, _scale(u, total, rows, columns))


def _scale(u: tuple[Tensor, ...], total: float, rows: int, columns: int) -> float:
    """tr Ũ_1 = tr E[G⁽¹⁾] / (c₀ d_2) with tr E[G⁽¹⁾] = E‖D‖² and c₀² = E‖D‖² / (d_1 d_2) (ren eq. 4.10)."""
    return total / (total / (rows * columns)) ** 0.5


Z = torch.linspace(-2, 2, 2 * 3 * 4, dtype=torch.float64).reshape(2, 3, 4)
MASK = torch.tensor([[True, False, True], [True, True, False]])
CASES = {
    "classes last": (Categorical(-1), Z, torch.tensor([[1, -100, 3], [0, 2, 99]])),
    "classes first": (Categorical(1), Z.mT.contiguous(), torch.tensor([[1, -100, 3], [0, 2, 99]])),
    "gaussian": (Gaussian(), Z, Z.flip(0) * 2),
    "bernoulli": (Bernoulli(), Z, (Z > 0.3).double()),
}


@pytest.mark.parametrize("name", CASES)
def test_masked_losses(name: str) -> None:
    """The loss by hand over the kept positions; residual and Hessian by autograd of it."""
    inner, z, y = CASES[name]
    likelihood = Masked(inner, MASK)
    likelihood.check_targets(z, y)

    def loss(flat: Tensor) -> Tensor:
        at = flat.reshape(z.shape)
        last = at.movedim(1, -1) if name == "classes first" else at
        terms = [
            torch.nn.functional.cross_entropy(last[n, t], y[n, t])
            if isinstance(inner, Categorical)
            else inner.loss(last[n, t][None], y[n, t][None])
            for n, t in MASK.nonzero().tolist()
        ]
        return torch.stack(terms).sum() / 2

    flat = z.flatten().clone().requires_grad_()
    torch.testing.assert_close(likelihood.loss(z, y), loss(flat).detach())
    gradient = torch.autograd.grad(loss(flat), flat)[0]
    torch.testing.assert_close(likelihood.residual(z, y).flatten() / 2, gradient)
    hessian = torch.autograd.functional.hessian(loss, flat.detach()) * 2
    columns = torch.stack([c.flatten() for c in likelihood.hessian_root(z)])
    half = z[0].numel()
    for n in range(2):  # block by block: examples do not mix
        own = columns[:, n * half : (n + 1) * half]
        torch.testing.assert_close(own.T @ own, hessian[n * half :, n * half :][:half, :half])
    v = torch.randn_like(z)
    torch.testing.assert_close(likelihood.hessian_product(z, v).flatten(), hessian @ v.flatten())


def test_drawn_targets_do_not_depend_on_the_mask() -> None:
    u = torch.rand(2, 3, dtype=torch.float64)
    assert torch.equal(Masked(Categorical(-1), MASK).sample(Z, u), Categorical(-1).sample(Z, u))
    assert Masked(Categorical(-1), MASK).draws(Z) == (2, 3)


def test_wrong_labels_where_they_count_are_still_wrong() -> None:
    likelihood = Masked(Categorical(-1), MASK)
    with pytest.raises(CurvlabError, match="targets lie in"):
        likelihood.check_targets(Z, torch.full((2, 3), 4))


def text(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    ids = np.array([[5, 6, 7], [8, 9, 0]])
    return {"input_ids": ids, "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]), **arrays}


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_tokenised_text_is_read(suffix: str, tmp_path: Any) -> None:
    from safetensors.numpy import save_file

    arrays, path = text(labels=np.array([1, 0]), other=np.zeros(2)), tmp_path / f"t.{suffix}"
    np.savez(path, **arrays) if suffix == "npz" else save_file(arrays, path)
    data = load_data(str(path))
    assert isinstance(data, Tokens)
    assert data.x.tolist() == arrays["input_ids"].tolist()
    assert data.y is not None
    assert data.y.tolist() == [1, 0]
    assert list(data.beside) == ["attention_mask"]
    assert data.notes == ("arrays not used: other",)
    one = data.take(1, seed=0)
    assert one.beside["attention_mask"].shape == (1, 3)


WRONG = {
    "ids that are real": (text(input_ids=np.ones((2, 3))), "whole numbers"),
    "a mask of another shape": (text(attention_mask=np.ones((2, 4), int)), "0 and 1 for each id"),
    "a mask of other numbers": (text(attention_mask=np.full((2, 3), 2)), "0 and 1 for each id"),
    "padding alone": (text(attention_mask=np.array([[1, 1, 1], [0, 0, 0]])), "an example of padding alone"),
    "labels for another number of examples": (text(labels=np.zeros(3, int)), "do not pair up"),
}


@pytest.mark.parametrize("name", WRONG)
def test_text_that_is_wrong(name: str, tmp_path: Any) -> None:
    arrays, words = WRONG[name]
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_data(str(tmp_path / "t.npz"))


def test_a_network_without_keywords_gets_the_ids_alone(tmp_path: Any) -> None:
    np.savez(tmp_path / "t.npz", **text(labels=np.array([1, 0])))
    data = load_data(str(tmp_path / "t.npz"))
    assert isinstance(data, Tokens)
    inputs, _, notes = keyword_inputs(data, nn.Sequential(nn.Embedding(11, 2), nn.Flatten(), nn.Linear(6, 2)))
    assert isinstance(inputs, Tensor)
    assert notes == ["the network takes no attention_mask: not used"]


def test_a_profile_says_how_many_positions_count(tmp_path: Any) -> None:
    torch.manual_seed(0)
    mask = (torch.arange(T) < LENGTHS[:, None]).long().numpy()
    labels = np.where(mask == 1, 2, IGNORED)
    labels[0, 0] = IGNORED
    np.savez(tmp_path / "t.npz", input_ids=mask * 3, attention_mask=mask, labels=labels)
    analysis = curvlab.analyze(Reader(), str(tmp_path / "t.npz"))
    total = int(LENGTHS.sum())
    assert any(f"{total} of {N * T} positions count" in note for note in analysis.notes)
    assert any(f"{total - 1} of {N * T} labels count" in note for note in analysis.notes)
    head = analysis["head"].moments
    assert head is not None
    assert head.count == total
    assert analysis.coverage.analyzed == analysis.coverage.parameters


@pytest.mark.parametrize("with_labels", [True, False])
def test_gauss_newton_products_leave_padding_out(padded: Any, with_labels: bool) -> None:
    """Padding by attention_mask, and by labels of -100: the product is that of the examples cut to their lengths."""
    model, inputs, labels = padded
    vector = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    if with_labels:
        found = ggn_product(model, inputs, labels, vector, likelihood="categorical")
        parts = without_padding(inputs, labels)
    else:
        found = ggn_product(model, inputs, None, vector, likelihood="categorical")
        parts = [(one, None) for one, _ in without_padding(inputs, torch.zeros_like(labels))]
    wanted = {name: torch.zeros_like(v) for name, v in vector.items()}
    for one, y in parts:
        for name, product in ggn_product(model, one, y, vector, likelihood="categorical").items():
            wanted[name] += product * (len(next(iter(one.values()))) / len(labels))
    for name in vector:
        torch.testing.assert_close(found[name], wanted[name])

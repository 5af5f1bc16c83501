"""What the public statistics are given: language models' outputs, train mode, data that is empty or does not fit."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from curvlab import curvature
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Categorical
from curvlab.optim import create

pytestmark = pytest.mark.usefixtures("float64")


class SequenceFirst(nn.Module):
    """Runs with time first inside, as recurrent layers and transformers do by default."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.mix, self.out = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.mix(self.read(tokens).transpose(0, 1))).mean(0))


def test_as_many_examples_as_time_steps_do_not_swap_them() -> None:
    """A batch of 5 examples of 5 steps, seen time first inside, does not say by its shapes which axis is which."""
    model, tokens = SequenceFirst(), torch.randint(0, 7, (10, 5))
    whole, cut = (
        curvature.tensor_normal_factors(
            model, x, likelihood="categorical", fisher_type="type-2", statistic="per-example"
        )
        for x in (tokens, list(tokens.split(5)))
    )
    reduced, cut_reduced = (
        curvature.kfac_factors(model, x, likelihood="categorical", fisher_type="type-2", kfac_approx="reduce")
        for x in (tokens, list(tokens.split(5)))
    )
    for name, factors in whole.items():
        for one, other in zip(factors.factors, cut[name].factors, strict=True):
            torch.testing.assert_close(one, other)
    for name, pair in reduced.items():
        torch.testing.assert_close(pair.input_factor, cut_reduced[name].input_factor)
        torch.testing.assert_close(pair.gradient_factor, cut_reduced[name].gradient_factor)


class Keyed(nn.Module):
    """Takes one mapping, or the same by keyword; attends to nothing, so that padding shows in the factors alone."""

    def __init__(self, mapping: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mapping, self.read, self.out = mapping, nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, *given: Mapping[str, Tensor], **named: Tensor) -> Tensor:
        (inputs,) = given if self.mapping else (named,)
        return self.out(torch.tanh(self.read(inputs["input_ids"])))


def test_one_mapping_is_as_good_as_keywords_and_any_mapping_will_do() -> None:
    """As tokenizers give them (a UserDict); padding does not count in either."""
    inputs = {"input_ids": torch.randint(0, 7, (5, 4)), "attention_mask": (torch.rand(5, 4) < 0.7).long()}
    inputs["attention_mask"][:, 0] = 1
    y = torch.randint(0, 3, (5, 4))
    options = {"likelihood": "categorical", "fisher_type": "empirical"}
    wanted = curvature.kfac_factors(Keyed(False), inputs, y, **options)
    assert set(wanted) == {"read", "out"}
    halves = [UserDict({key: value[part] for key, value in inputs.items()}) for part in (slice(2), slice(2, 5))]
    calls = [
        (Keyed(False), UserDict(inputs), y),
        (Keyed(True), (UserDict(inputs),), y),
        (Keyed(True), [((half,), t) for half, t in zip(halves, (y[:2], y[2:]), strict=True)], None),
    ]
    for model, x, targets in calls:
        found = curvature.kfac_factors(model, x, targets, **options)
        for name, factors in wanted.items():
            torch.testing.assert_close(found[name].input_factor, factors.input_factor)
            torch.testing.assert_close(found[name].gradient_factor, factors.gradient_factor)
    moments = curvature.feature_moments(Keyed(False), halves)["out"]
    assert moments.count == int(inputs["attention_mask"].sum())


def test_a_closure_may_call_the_model_with_one_mapping() -> None:
    x, y = torch.randint(0, 7, (6, 4)), torch.randint(0, 3, (6,))
    weights = []
    for mapping in (True, False):
        model = Keyed(mapping)
        optimizer = create("kfac", model, likelihood="categorical", lr=0.1)
        for _ in range(2):
            optimizer.step(
                lambda m=model: nn.functional.cross_entropy(
                    (m({"input_ids": x}) if m.mapping else m(input_ids=x)).mean(1), y
                )
            )
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*weights)


def test_targets_tell_where_a_language_model_has_its_classes() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 6))
    tokens, y = torch.randint(0, 7, (8, 5)), torch.randint(0, 6, (8, 5))
    for fisher_type in ("type-2", "mc", "empirical"):
        told, named = (
            curvature.kfac_factors(model, tokens, y, likelihood=likelihood, fisher_type=fisher_type)["1"]
            for likelihood in ("categorical", Categorical(class_axis=-1))
        )
        assert torch.equal(told.gradient_factor, named.gradient_factor)
        # Residuals of a softmax over the six classes sum to zero; over five positions they would not.
        assert told.gradient_factor.sum(0).abs().max() < 1e-12
    vector = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    told, named = (
        curvature.ggn_product(model, tokens, y, vector, likelihood=likelihood)
        for likelihood in ("categorical", Categorical(class_axis=-1))
    )
    assert all(torch.equal(told[name], named[name]) for name in vector)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).train()


def test_dropout_is_drawn_from_the_seed_and_the_random_state_stays() -> None:
    model, x = network(), torch.randn(9, 4)
    before = torch.get_rng_state()
    first, again, other = (
        curvature.kfac_factors(model, x, likelihood="categorical", fisher_type="type-2", seed=seed)["3"].input_factor
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_gauss_newton_in_train_mode_is_that_of_the_batch_normalised_network() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).train(), torch.randn(9, 4)
    before = {name: b.clone() for name, b in model.named_buffers()}
    vector = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    product = curvature.ggn_product(model, x, None, vector, likelihood="gaussian")

    parameters = tuple(p.detach() for p in model.parameters())

    def output(*values: Tensor) -> Tensor:
        w, b, scale, shift, w2, b2 = values
        h = x @ w.T + b
        h = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt() * scale + shift
        return h @ w2.T + b2

    columns = torch.autograd.functional.jacobian(output, parameters)
    jacobian = torch.cat([c.reshape(27, -1) for c in columns], dim=1)
    expected = jacobian.T @ (jacobian @ torch.cat([v.flatten() for v in vector.values()])) / 9
    torch.testing.assert_close(torch.cat([p.flatten() for p in product.values()]), expected)
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m, x: curvature.feature_moments(m, x[:0]), "holds no examples"),
        (lambda m, x: curvature.kfac_factors(m, x, likelihood="gaussian", mc_samples=0), "mc_samples is 0"),
        (lambda m, x: curvature.feature_moments(m, x[:, :3]), r"cannot run on a batch of \(2, 3\)"),
        (lambda m, x: curvature.feature_moments(m, [x, x[:, :3]]), r"cannot run on a batch of \(9, 3\)"),
        (lambda m, x: curvature.ggn_product(m, [x], None, {}, likelihood="gaussian"), "x is a list"),
        (
            lambda m, x: curvature.ggn_product(m, x, None, {"0.bias": x}, likelihood="gaussian"),
            r"shape \(9, 4\) for '0.bias', whose shape is \(6,\)",
        ),
    ],
    ids=["empty", "no draws", "wrong shape", "wrong shape later", "loader", "wrong vector"],
)
def test_what_does_not_fit_is_one_sentence(call: object, sentence: str) -> None:
    with pytest.raises(CurvlabError, match=sentence):
        call(network().eval(), torch.randn(9, 4))


@pytest.mark.parametrize("fisher_type", ["mc", "type-2", "empirical"])
@pytest.mark.parametrize("wrong", [-1, 3, 255])
def test_a_label_outside_the_network_s_classes_is_one_sentence_whether_it_is_used_or_not(
    wrong: int, fisher_type: str
) -> None:
    pixels, y = nn.Sequential(nn.Conv2d(2, 3, 1)), torch.randint(0, 3, (4, 5, 5))
    y[1, 2, 3] = wrong
    sentence = rf"targets lie in {min(wrong, 0)}\.\.{max(wrong, 2)}: the model has 3 classes, 0\.\.2; give the data"
    with pytest.raises(CurvlabError, match=sentence):
        curvature.kfac_factors(pixels, torch.randn(4, 2, 5, 5), y, likelihood="categorical", fisher_type=fisher_type)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_entries_is_refused_not_divided_by() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 0), nn.Linear(0, 2))
    assert list(curvature.feature_moments(model, torch.randn(3, 4))) == ["0"]

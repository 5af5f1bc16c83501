"""Profiles of many weights: the same numbers as one by one, in order, with few calls of torch and few looks at the
model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

import curvlab
from curvlab.analyses.layer_rows import LayerRow, rows_of_module
from curvlab.analyses.power_law import power_law, power_laws
from curvlab.analyses.weight_batches import MOST_ENTRIES, in_batches
from curvlab.analyses.weight_outliers import stacked_ranges, unreadable, weight_range
from curvlab.analyses.weight_statistics import stacked_statistics, weight_blocks, weight_statistics


def odd_weights() -> dict[str, Tensor]:
    """Weights of three shapes in turn, among them some whose numbers do not exist."""
    torch.manual_seed(3)
    made: dict[str, Tensor] = {}
    for i in range(12):
        made |= {f"{i}.square": torch.randn(12, 12), f"{i}.wide": torch.randn(4, 30), f"{i}.number": torch.randn(())}
    made["1.square"][3, 3] = math.nan
    made["2.square"].zero_()
    made["3.square"] = torch.randn(12, 3) @ torch.randn(3, 12)
    made["4.square"] *= 1e-30
    made["5.square"] = torch.linalg.qr(torch.randn(12, 12).double()).Q * torch.logspace(0, -11, 12, dtype=torch.float64)
    made["6.square"] = made["6.square"].bfloat16()
    made["7.square"] = torch.randn(12, 12, dtype=torch.complex64)
    made["8.square"] = torch.randint(-3, 4, (12, 12))
    made["9.square"] = torch.eye(12)
    made["10.square"][:, [2, 7]] = 0
    made["11.wide"] *= 1e30
    return made | {f"kernel{i}": torch.randn(4, 3, 3) for i in range(3)} | {"empty": torch.zeros(0, 3)}


def as_entries(weights: Mapping[str, Tensor]) -> list[LayerRow]:
    grouped = {"kernel1": 2, "kernel2": 4}
    return [LayerRow(name, "Linear", name, (name,), groups=grouped.get(name, 1)) for name in weights]


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def test_ranges_are_those_of_one_weight_after_the_other() -> None:
    weights = odd_weights()
    entries = as_entries(weights)
    found = list(in_batches(entries, weights, shapes_of(weights), stacked_ranges))
    for entry, (together, note) in zip(entries, found, strict=True):
        weight = weights[entry.weight]
        assert note == unreadable(weight), entry.name
        if note:
            assert together is None
            continue
        alone = weight_range(weight_blocks(weight, entry.groups, False))
        for name, expected in asdict(alone).items():
            # Sums of other orders: n·eps of the sum of squares, and of the fourth powers.
            close = pytest.approx(expected, rel=1e-12) if isinstance(expected, (float, tuple)) else expected
            assert getattr(together, name) == close, (entry.name, name)


def test_they_are_those_of_one_weight_after_the_other() -> None:
    weights = odd_weights()
    entries = as_entries(weights)
    found = list(in_batches(entries, weights, shapes_of(weights), stacked_statistics))
    assert len(found) == len(entries)
    for entry, together in zip(entries, found, strict=True):
        alone = weight_statistics(weights[entry.weight], groups=entry.groups)
        # A stacked matrix may go through another order of additions, and σ_min is known to √eps·RESOLVED at the worst.
        for name, expected in asdict(alone).items():
            rel = 1e-5 if name == "condition_number" else 1e-9
            close = pytest.approx(expected, rel=rel) if isinstance(expected, float) else expected
            assert getattr(together, name) == close, (entry.name, name)


def test_the_number_of_threads_is_as_before() -> None:
    weights = odd_weights()
    threads = torch.get_num_threads()

    def failing(several: list[Tensor], groups: int, transposed: bool) -> list[int]:
        assert torch.get_num_threads() == (1 if len(several) > 1 else threads)
        if len(several) > 1:
            raise ValueError("no numbers")
        return [0]

    with pytest.raises(ValueError, match="no numbers"):
        list(in_batches(as_entries(weights), weights, shapes_of(weights), failing))
    assert torch.get_num_threads() == threads


class Counting(Mapping[str, Tensor]):
    """Tensors that note down which of them were read."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights, self.reads = weights, set[str]()

    def __getitem__(self, name: str) -> Tensor:
        self.reads.add(name)
        return self.weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


def test_large_weights_are_not_read_ahead() -> None:
    side = math.isqrt(MOST_ENTRIES // 2)
    weights = {f"large{i}": torch.ones(side, side) for i in range(3)} | {
        f"huge{i}": torch.ones(2 * side, side) for i in range(2)
    }
    tensors = Counting(weights)
    profiles = in_batches(as_entries(weights), tensors, shapes_of(weights), stacked_statistics)
    seen = []
    for _ in weights:
        assert next(profiles).rank == 1
        seen.append(len(tensors.reads))
    assert seen == [2, 2, 3, 4, 5]


def test_thousands_of_weights_take_a_few_calls_and_a_few_looks_at_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = dict.fromkeys(("eigvalsh", "looks"), 0)
    eigvalsh, named = torch.linalg.eigvalsh, nn.Module.named_parameters

    def counted(x: Tensor) -> Tensor:
        calls["eigvalsh"] += 1
        return eigvalsh(x)

    def looked(self: nn.Module, *args: object, **kwargs: object) -> object:
        calls["looks"] += 1
        return named(self, *args, **kwargs)

    monkeypatch.setattr(torch.linalg, "eigvalsh", counted)
    model = nn.ParameterList([nn.Parameter(torch.randn(3, 2)) for _ in range(2000)])
    monkeypatch.setattr(nn.Module, "named_parameters", looked)
    analysis = curvlab.analyze(model)
    assert len(analysis.layers) == 2000
    assert analysis.layers[1234].weights.spectral_norm == pytest.approx(
        torch.linalg.svdvals(model[1234].detach())[0].item(), rel=1e-5
    )
    assert calls["eigvalsh"] <= 2
    assert calls["looks"] < 20


def test_a_transposed_convolution_is_read_in_the_layers_order() -> None:
    model = nn.Sequential(*(nn.ConvTranspose2d(4, 6, 3, groups=2) for _ in range(3)))
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    found = list(in_batches(rows_of_module(model, None), tensors, shapes_of(tensors), stacked_statistics))
    for layer, result in zip(model, found, strict=True):
        w = layer.weight.detach().double()
        blocks = [w[i : i + 2].transpose(0, 1).reshape(3, -1) for i in (0, 2)]
        values = torch.cat([torch.linalg.svdvals(block) for block in blocks])
        assert result.spectral_norm == pytest.approx(values.max().item(), rel=1e-9)
        assert result.condition_number == pytest.approx((values.max() / values.min()).item(), rel=1e-9)


def test_where_one_svd_of_a_stack_fails_the_others_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    svdvals, bad = torch.linalg.svdvals, torch.diag(torch.tensor([1.0, 1e-9, 0.5])).double()

    def failing(x: Tensor) -> Tensor:
        if bool((x[..., 2, 2] == 0.5).any()):
            raise torch.linalg.LinAlgError("did not converge")
        return svdvals(x)

    monkeypatch.setattr(torch.linalg, "svdvals", failing)
    good = torch.diag(torch.tensor([1.0, 1e-7, 0.25])).double()
    found = stacked_statistics([good, bad, good])
    assert [result.condition_number for result in found] == [
        pytest.approx(1e7, rel=1e-6),
        None,
        pytest.approx(1e7, rel=1e-6),
    ]
    assert found[1].note.startswith("1 singular values under")


def test_tails_of_rows_with_different_numbers_of_positive_values() -> None:
    torch.manual_seed(0)
    rows = torch.rand(6, 40, dtype=torch.float64).pow(-0.7)
    rows[1, ::2] = 0
    rows[2] = 3.0
    rows[3, 5:] = 0
    rows[4, :20] = rows[4, 20]
    for together, alone in zip(power_laws(rows), map(power_law, rows), strict=True):
        assert (together is None) == (alone is None)
        if together is not None and alone is not None:
            assert asdict(together) == pytest.approx(asdict(alone), rel=1e-12)
    assert power_laws(rows)[2] is power_laws(rows)[3] is None

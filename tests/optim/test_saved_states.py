"""What a state holds, and what is refused: intervals that are not due, recipes, shapes, groups, copies."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from optim_rows import ROWS, Row
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.errors import CurvlabError
from curvlab.optim import KFAC, SGD, TNT, RMSprop, Shampoo
from curvlab.optim.core import Optimizer

pytestmark = pytest.mark.usefixtures("float64")
INTERVALS = [row for row in ROWS if row.scheduled]


def network(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6, bias=bias), nn.Tanh(), nn.Linear(6, 3, bias=bias))


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return x, (x @ torch.arange(12.0).reshape(4, 3).sin()).argmax(1)


def run(optimizer: Optimizer, model: nn.Module, steps: int) -> None:
    x, y = data()
    for _ in range(steps):
        optimizer.step(lambda: F.cross_entropy(model(x), y))


@pytest.mark.parametrize("row", INTERVALS, ids=lambda row: row.label)
@pytest.mark.parametrize("taken", [4, 5, 7])
def test_a_run_goes_on_bit_for_bit_between_due_steps(row: Row, taken: int) -> None:
    """T1 = 3, T2 = 4: steps 4, 5 and 7 measure nothing, so that the model's layers have to be found without it."""
    settings = {"statistics_interval": 3, "inverse_interval": 4}
    whole, resumed = network(), network()
    straight = row.make(whole, **settings)
    run(straight, whole, taken)
    state, kept = copy.deepcopy(straight.state_dict()), copy.deepcopy(whole.state_dict())
    run(straight, whole, 4)
    resumed.load_state_dict(kept)
    optimizer = row.make(resumed, **settings)
    optimizer.load_state_dict(state)
    assert optimizer.coverage() == straight.coverage()
    run(optimizer, resumed, 4)
    for name, p in whole.state_dict().items():
        assert torch.equal(p, resumed.state_dict()[name]), name


def test_a_direction_right_after_a_load_is_refused_and_not_the_gradient() -> None:
    model = network()
    optimizer = KFAC(model, "categorical")
    run(optimizer, model, 1)
    again = KFAC(model, "categorical")
    again.load_state_dict(optimizer.state_dict())
    gradients = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    with pytest.raises(CurvlabError, match="not seen the model run"):
        again.direction(gradients)


def test_the_schedule_is_the_saved_ones_and_another_recipe_is_refused() -> None:
    model = network()
    optimizer = KFAC(model, "categorical", statistics_interval=3, decay=0.5)
    run(optimizer, model, 1)
    other = KFAC(model, "categorical")
    other.load_state_dict(optimizer.state_dict())
    assert other.schedule == optimizer.schedule
    with pytest.raises(CurvlabError, match="fisher_type 'mc': this one has 'empirical'"):
        KFAC(model, fisher_type="empirical").load_state_dict(optimizer.state_dict())
    tnt = TNT(model, "categorical")
    run(tnt, model, 1)
    with pytest.raises(CurvlabError, match="statistic 'batch': this one has 'per-example'"):
        TNT(model, "categorical", statistic="per-example").load_state_dict(tnt.state_dict())


def test_states_that_do_not_fit_are_refused_and_change_nothing() -> None:
    model = network()
    optimizer = SGD(model)
    run(optimizer, model, 1)
    state = optimizer.state_dict()
    larger = nn.Sequential(*network(), nn.Linear(3, 3))
    with pytest.raises(CurvlabError, match=r"does not have the parameter '3\.weight'"):
        SGD(larger).load_state_dict(state)
    other = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3))
    fresh = SGD(other)
    with pytest.raises(CurvlabError, match=r"'0\.weight'"):
        fresh.load_state_dict(state)
    assert fresh.steps == 0
    with pytest.raises(CurvlabError, match="has no 'state'"):
        SGD(model).load_state_dict({k: v for k, v in state.items() if k != "state"})


def test_a_load_forgets_batches_that_were_waiting() -> None:
    model = network()
    optimizer = KFAC(model, "categorical")
    run(optimizer, model, 1)
    state = copy.deepcopy(optimizer.state_dict())
    x, y = data()
    optimizer.accumulate(lambda: F.cross_entropy(model(x), y))
    optimizer.load_state_dict(state)
    before = {name: p.clone() for name, p in model.named_parameters()}
    twin = network()
    twin.load_state_dict(model.state_dict())
    other = KFAC(twin, "categorical")
    other.load_state_dict(state)
    optimizer.step(lambda: F.cross_entropy(model(x[:7]), y[:7]))
    other.step(lambda: F.cross_entropy(twin(x[:7]), y[:7]))
    assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_float32_states_become_the_type_of_the_model() -> None:
    model = network().float()
    optimizer = KFAC(model, "categorical")
    x, y = data()
    optimizer.step(lambda: F.cross_entropy(model(x.float()), y))
    double = network()
    other = KFAC(double, "categorical")
    other.load_state_dict(optimizer.state_dict())
    assert {t.dtype for state in other.averages.values() for t in state.values()} == {torch.float64}
    run(other, double, 1)


def test_the_models_of_optimizers_can_be_copied_and_pickled() -> None:
    model = network()
    x, y = data()
    for optimizer in (SGD(model), KFAC(model, "categorical", step_size="mvp")):
        run(optimizer, model, 1)
        teacher = copy.deepcopy(model)
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))
        with pytest.raises(CurvlabError, match="tied to its model"):
            copy.deepcopy(optimizer)
        record = optimizer.measure(lambda: F.cross_entropy(model(x) + 0 * teacher(x).detach(), y), first=True)  # noqa: B023
        assert record.examples == len(x)
        assert record.loss is not None
        assert record.loss.isfinite()


def test_groups_are_checked() -> None:
    model = network()
    with pytest.raises(CurvlabError, match="sets 'learning_rate'"):
        SGD(model, groups=[{"params": ["0.weight"], "learning_rate": 5}])
    with pytest.raises(CurvlabError, match="no 'params'"):
        SGD(model, groups=[{"lr": 5}])
    with pytest.raises(CurvlabError, match="no parameter of the model"):
        SGD(model, groups=[{"params": [nn.Parameter(torch.ones(1))]}])
    with pytest.raises(CurvlabError, match="lr is -1"):
        SGD(model, groups=[{"params": "0.weight", "lr": -1}])
    one = SGD(model, groups=[{"params": "0.weight", "lr": 0.5}])
    assert [len(group["params"]) for group in one.param_groups] == [1, 3]


def test_a_closure_that_calls_backward_is_told_so() -> None:
    model = network()
    x, y = data()

    def closure() -> Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    for optimizer in (SGD(model), KFAC(model, "categorical")):
        with pytest.raises(CurvlabError, match="has called backward"):
            optimizer.step(closure)


def test_a_closure_that_raises_leaves_nothing_behind() -> None:
    model = network()
    x, y = data()
    optimizer, alone = KFAC(model, "categorical"), network()
    other = KFAC(alone, "categorical")
    optimizer.accumulate(lambda: F.cross_entropy(model(x), y))
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: F.cross_entropy(model(x), y) / (1 // 0))
    optimizer.step(lambda: F.cross_entropy(model(x[:9]), y[:9]))
    other.step(lambda: F.cross_entropy(alone(x[:9]), y[:9]))
    for mine, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_half_precision_weights(row: Row) -> None:
    model = network().to(torch.bfloat16)
    x, y = data()
    x = x.to(torch.bfloat16)
    optimizer = row.make(model)
    losses = [optimizer.step(lambda: F.cross_entropy(model(x).float(), y)) for _ in range(30)]
    assert losses[-1] is not None
    assert losses[-1] < 0.9 * losses[0]  # type: ignore[operator]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_layers_that_are_frozen_and_freed_leave_and_join() -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = KFAC(model, "categorical")
    run(optimizer, model, 2)
    assert {unit.name for unit in optimizer.blocks} == {"2"}
    model[0].requires_grad_(True)
    run(optimizer, model, 2)
    assert {unit.name for unit in optimizer.blocks} == {"0", "2"}
    assert optimizer.coverage()["0.weight"] == "kfac"


# Warm starts.


def test_a_warm_start_takes_a_loader_and_leaves_the_model_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    x, y = data()
    optimizer = KFAC(model, "categorical")
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 10)
    assert optimizer.warm_start(loader, lambda x, y: F.cross_entropy(model(x), y)) > 0
    assert optimizer.averages
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.get_rng_state(), random)
    with pytest.raises(CurvlabError, match="give loss="):
        optimizer.warm_start(loader)
    assert SGD(model).warm_start(loader) == 0.0


def test_batches_of_a_warm_start_draw_targets_of_their_own() -> None:
    """Gaussian pseudo-gradients at the output are the noise: their second moment is I, to √(2/rows)."""
    model = nn.Linear(4, 3)
    x = torch.randn(50, 4)
    optimizer = KFAC(model, "gaussian")
    optimizer.warm_start([lambda: 0.5 * model(x).square().sum() / len(x)] * 60)
    (state,) = optimizer.averages.values()
    torch.testing.assert_close(state["gradient"][0], torch.eye(3), rtol=0, atol=4 * (2 / 3000) ** 0.5)


@pytest.mark.parametrize("kind", [KFAC, Shampoo, RMSprop])
def test_batches_that_are_not_finite_are_left_out_of_a_warm_start_and_counted(kind: type[Optimizer]) -> None:
    x, y = data()

    def measured(factors: list[float]) -> tuple[Optimizer, nn.Module]:
        model = network()
        optimizer = kind(model, "categorical") if kind is KFAC else kind(model)  # type: ignore[call-arg]
        optimizer.warm_start([lambda f=f: F.cross_entropy(model(x), y) * f for f in factors])
        return optimizer, model

    (one, first), (other, second) = measured([1.0, float("nan"), 1.0]), measured([1.0, 1.0])
    assert (one.skipped, other.skipped) == (1, 0)
    run(one, first, 1)
    run(other, second, 1)
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, theirs)


def test_the_fourth_failure_in_a_row_names_the_layer() -> None:
    model = network()
    optimizer = KFAC(model, "categorical", inverse_interval=1)
    run(optimizer, model, 1)
    good = optimizer.operators.blocks["2"].value
    for failure in range(1, 5):
        optimizer.averages["2"]["input"].fill_(float("nan"))
        if failure < 4:
            run(optimizer, model, 1)
            assert optimizer.failures == {"2": failure}
            assert optimizer.operators.blocks["2"].value is good
        else:
            with pytest.raises(CurvlabError, match="'2'"):
                run(optimizer, model, 1)


@pytest.mark.parametrize("kind", [TNT, Shampoo])
def test_modes_that_are_too_large_are_reported_and_not_built(kind: type[Optimizer]) -> None:
    """A table of 1,000 words would need a factor of 1,000 × 1,000."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(1000, 4), nn.Flatten(), nn.Linear(8, 3))
    words, y = torch.randint(0, 1000, (30, 2)), torch.randint(0, 3, (30,))
    optimizer = kind(model, "categorical", largest_mode=500)  # type: ignore[call-arg]
    for _ in range(3):
        optimizer.step(lambda: F.cross_entropy(model(words), y))
    coverage = optimizer.coverage()
    assert coverage["0.weight"].startswith("heavy ball")
    assert coverage["2.weight"] == optimizer.name
    assert max(t.shape[-1] for state in optimizer.averages.values() for t in state.values()) == 8

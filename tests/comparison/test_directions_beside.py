"""Directions beside the baseline's, against the same numbers worked out by hand in float64."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import BatchRecord
from curvlab.comparison.agreement import agreements
from curvlab.comparison.compare import compare
from curvlab.comparison.direction_study import DirectionStudy
from curvlab.comparison.optimizer_specs import OptimizerSpec
from curvlab.comparison.results import Comparison
from curvlab.comparison.trajectory import along_trajectory
from curvlab.comparison.workload import DataOptions, Workload, of_problem
from curvlab.errors import CurvlabError, NumericalError
from curvlab.likelihoods import likelihood
from curvlab.optim import KFAC, create
from tests import oracles

QUICK = {"steps": 4, "dtype": "float64", "batch_size": 10}
EMPIRICAL = {"fisher_type": "empirical"}


def quick(optimizers: list[str], **options: object) -> Comparison:
    return compare("wine-mlp", optimizers, **{**QUICK, **options})  # type: ignore[arg-type]


def numbers(tensors: dict[str, Tensor], names: tuple[str, ...]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in names])


def silent(stage: str, done: int, total: int | None) -> None:
    pass


def test_the_baseline_with_itself_is_one() -> None:
    found = quick(["block-fisher", "apart=block-fisher"], settings={"apart": {"lr": 0.9}})
    for one in found.optimizers.values():
        for layer, values in one.cosine.items():
            assert values == pytest.approx([1.0] * 4, abs=1e-12), layer
        assert one.mean_fisher == pytest.approx(1.0, abs=1e-12)
    assert found["apart"].settings["lr"] == 0.9


def test_the_order_of_the_optimizers_changes_nothing() -> None:
    names = ["sgd", "kfac", "lnb", "tnt", "shampoo", "adam", "ekfac", "fop"]
    one, other = quick(names).to_dict(), quick(names[::-1]).to_dict()
    assert one["optimizers"] == other["optimizers"]
    assert list(one["optimizers"]) == names


def test_the_same_seed_gives_the_same_document_and_another_does_not() -> None:
    first, again = (json.dumps(quick(["kfac", "adam"]).to_dict()) for _ in range(2))
    assert first == again
    other = quick(["kfac", "adam"], seed=1).to_dict()
    assert other["optimizers"]["kfac"]["mean"] != json.loads(first)["optimizers"]["kfac"]["mean"]
    assert other["hashes"] != json.loads(first)["hashes"]


def test_the_trajectory_is_that_of_the_baseline_alone() -> None:
    data_options = DataOptions(seed=3, dtype="float64", batch_size=10)
    workload = of_problem("wine-mlp", data_options)
    settings = {"lr": 0.05, "damping": 0.1, "fisher_type": "empirical", "inverse_interval": 1}
    study = DirectionStudy(workload, [OptimizerSpec("kfac", "kfac")], OptimizerSpec("b", "block-fisher", settings), 3)
    along_trajectory(study, 6, (), silent, warm=False)
    alone = of_problem("wine-mlp", data_options)
    optimizer = create("block-fisher", alone.model, likelihood="categorical", **settings)
    batches = alone.closures()
    for _ in range(6):
        optimizer.step(next(batches))
    for name, p in alone.model.named_parameters():
        torch.testing.assert_close(dict(workload.model.named_parameters())[name], p, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop", "kfac", "ekfac", "tnt", "shampoo", "lnb", "fop", "pp-hd"])
def test_what_a_follower_proposes_is_what_it_would_step_along(name: str) -> None:
    """The shared pass shows an optimizer what its own would have shown it."""
    workload = of_problem("wine-mlp", DataOptions(dtype="float64", batch_size=10))
    own = {"momentum": 0.9} if name in ("sgd", "kfac", "ekfac", "tnt", "shampoo") else {}
    settings = {**own, **(EMPIRICAL if name in ("kfac", "ekfac", "tnt") else {})}
    study = DirectionStudy(workload, [OptimizerSpec("x", name, settings)], OptimizerSpec("b", "sgd", {"lr": 0.1}), 0)
    alone = of_problem("wine-mlp", DataOptions(dtype="float64", batch_size=10))
    optimizer = create(name, alone.model, likelihood="categorical", **settings)
    batches, own_batches = workload.closures(), alone.closures()
    for _ in range(3):
        closure, own_closure = next(batches), next(own_batches)
        study.run(closure)
        for shadow in study.everyone():
            shadow.take(closure)
        proposed = study.shadows["x"].propose()
        optimizer.accumulate(own_closure)
        wanted = optimizer.propose()
        optimizer.steps += 1
        assert proposed.keys() == wanted.keys()
        for parameter, direction in wanted.items():
            torch.testing.assert_close(proposed[parameter], direction, rtol=1e-9, atol=1e-12)
        study.reference.move(study.reference.propose({}))
        with torch.no_grad():
            for p, q in zip(alone.model.parameters(), workload.model.parameters(), strict=True):
                p.copy_(q)


def test_one_forward_feeds_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = of_problem("wine-mlp", DataOptions(batch_size=10))
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    names = ["sgd", "adam", "kfac", "ekfac", "tnt", "shampoo", "lnb", "fop"]
    study = DirectionStudy(
        workload, [OptimizerSpec(name, name) for name in names], OptimizerSpec("b", "block-fisher"), 0
    )
    along_trajectory(study, 1, (), silent, warm=False)  # finds the blocks by a small forward of its own
    workload.model.register_forward_hook(count)
    along_trajectory(study, 3, (), silent, warm=False)
    assert calls == 3


def test_cosines_and_decrease_are_those_of_dense_matrices() -> None:
    """F by autograd, one example at a time; cos in it, and the best decrease along each direction, written out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x, y = torch.randn(9, 4).double(), torch.randint(0, 2, (9,))
    workload = Workload(
        "mine", model, likelihood("categorical"), lambda: iter(()), lambda: iter(()), (), {}, {}, "", x, 1, True
    )
    study = DirectionStudy(workload, [], OptimizerSpec("b", "block-fisher", {"fisher_type": "empirical"}), 0)
    closure = lambda: nn.functional.cross_entropy(model(x), y)  # noqa: E731
    seen = study.run(closure)
    study.everyone()[0].take(closure)
    study.everyone()[0].propose()
    drawn = [{n: torch.randn_like(p) for n, p in model.named_parameters()} for _ in range(3)]
    found = agreements(
        {"p": drawn[0], "g": seen.gradients, "none": {}}, drawn[1], seen.gradients, study.layers, study.fisher.blocks()
    )
    columns = list(oracles.fisher_columns(model, x, y, "categorical", "empirical"))
    assert study.layers == {"0": ("0.weight", "0.bias"), "2": ("2.weight", "2.bias")}
    curvature, slope = 0.0, 0.0
    for layer, names in study.layers.items():
        fisher = oracles.dense_block(columns, list(names))
        p, q, g = (numbers(one, names) for one in (drawn[0], drawn[1], seen.gradients))
        euclidean = float(p @ q / (p.norm() * q.norm()))
        assert found["p"].cosine[layer] == pytest.approx(euclidean, rel=1e-10)
        metric = float(p @ fisher @ q / ((p @ fisher @ p) * (q @ fisher @ q)).sqrt())
        assert found["p"].fisher_cosine[layer] == pytest.approx(metric, rel=1e-9)
        curvature, slope = curvature + float(g @ fisher @ g), slope + float(g @ g)
    assert found["g"].decrease == pytest.approx(slope**2 / (2 * curvature), rel=1e-9)
    whole = (
        torch.cat([numbers(one, tuple(one)) for one in (drawn[0],)]),
        torch.cat([numbers(drawn[1], tuple(drawn[1]))]),
    )
    assert found["p"].whole == pytest.approx(float(whole[0] @ whole[1] / (whole[0].norm() * whole[1].norm())))
    assert found["none"].whole is None
    assert set(found["none"].cosine.values()) == {None}


def test_a_direction_uphill_promises_nothing() -> None:
    found = quick(["sgd"])
    assert all(value is not None and value > 0 for value in (one.decrease for one in found["sgd"].agreements))
    first = found["sgd"].agreements[0]
    assert first.decrease is not None
    assert found.reference is not None
    assert found.reference.agreements[0].decrease is not None
    # (F + λI)⁻¹g is the best of all directions for the damped model; undamped it is still far ahead of the gradient.
    assert found.reference.agreements[0].decrease > first.decrease


def test_dropout_and_batch_norm_go_on_as_if_nobody_had_looked_twice() -> None:
    """K-FAC of the data's own targets needs a second pass beside the pseudo-targets': nothing shows of it."""
    torch.manual_seed(1)
    x, y = torch.randn(12, 5), torch.randint(0, 3, (12,))

    def run(specs: list[OptimizerSpec]) -> tuple[dict[str, Tensor], list[BatchRecord]]:
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))
        workload = Workload(
            "mine", model, likelihood("categorical"), lambda: iter(()), lambda: iter(()), (), {}, {}, "", x, 1, True
        )
        study = DirectionStudy(workload, specs, OptimizerSpec("b", "sgd"), 0)
        seen = []
        for _ in range(3):
            closure = lambda: nn.functional.cross_entropy(model(x), y)  # noqa: E731
            seen.append(study.run(closure))
            for shadow in study.everyone():
                shadow.take(closure)
                shadow.propose()
        return model.state_dict(), seen

    plain, first = run([])
    watched, second = run([OptimizerSpec("kfac", "kfac", EMPIRICAL), OptimizerSpec("tnt", "tnt")])
    for name, value in plain.items():
        torch.testing.assert_close(watched[name], value, rtol=0, atol=0)
    assert plain["1.num_batches_tracked"] == 3
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.loss, other.loss, rtol=0, atol=0)


def test_layers_can_be_chosen() -> None:
    found = quick(["sgd"], layers=["fc2"])
    assert found["sgd"].layers == ("fc2",)
    with pytest.raises(CurvlabError, match=r"no layer is called nothing\*: there are fc1, fc2"):
        quick(["sgd"], layers=["nothing*"])


@pytest.mark.parametrize(
    ("optimizers", "options", "message"),
    [
        (["kfak"], {}, "there is no optimizer 'kfak'; did you mean 'kfac'"),
        (["kfac", "kfac"], {}, "'kfac' is compared twice"),
        (["kfac"], {"settings": {"tnt": {"damping": 1.0}}}, "settings are given for 'tnt'"),
        (["kfac"], {"settings": {"kfac": {"dampin": 1.0}}}, "kfac has no setting 'dampin'"),
        (["kfac"], {"baseline": "newton"}, "there is no baseline 'newton'"),
        (["kfac"], {"baseline": "ggn", "settings": {"ggn": {"momentum": 0.1}}}, "ggn has no setting 'momentum'"),
        (["kfac"], {"mode": "race"}, "mode is 'race'"),
        (["kfac"], {"steps": 0}, "steps is 0"),
        (["kfac"], {"dampings": [0.0]}, "dampings is"),
        (["kfac"], {"epochs": 3}, "epochs is 3, which has an effect with mode=training or mode=both only"),
        (["kfac"], {"seeds": (0, 1)}, "directions are of one seed at a time"),
        (["kfac"], {"samples": 0}, "samples is 0"),
        (["kfac"], {"settings": {"kfac": {"step_size": "mvp"}}}, "kfac.step_size is about the length of steps"),
        (["sgd"], {"baseline": "kfac", "settings": {"kfac": {"adapt_damping": True}}}, "is about the length of steps"),
        (["kfac"], {"mode": "training", "dampings": [0.1]}, "has an effect with mode=directions or mode=both only"),
        (["kfac"], {"mode": "both", "layers": ["nope"], "epochs": 1}, "no layer is called nope"),
        (["kfac"], {"stepz": 3}, "compare has no option 'stepz'"),
        ([], {}, "no optimizer is given"),
        (["kfac"], {"settings": {"block-fisher": {"damping": -1.0}}}, "damping"),
    ],
)
def test_what_is_wrong_is_said(optimizers: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(CurvlabError, match=message.replace("(", r"\(")):
        quick(optimizers, **options)


def test_a_baseline_that_leaves_the_numbers_says_so() -> None:
    with pytest.raises(CurvlabError, match="the baseline's direction is not finite at step"):
        compare("diabetes-mlp", ["kfac"], baseline="sgd", steps=9, settings={"sgd": {"lr": 1e30}})


def test_a_warm_start_is_one_pass_for_those_that_have_one() -> None:
    """As `warm_start` of the optimizer itself, of the data's own targets; weights and buffers stay."""
    data_options = DataOptions(dtype="float64", batch_size=10)
    workload, alone = (of_problem("wine-mlp", data_options) for _ in range(2))
    settings = {"fisher_type": "empirical", "damping": 0.1, "inverse_interval": 1}
    study = DirectionStudy(workload, [OptimizerSpec("x", "kfac", settings)], OptimizerSpec("b", "sgd", {"lr": 0.0}), 0)
    along_trajectory(study, 1, (), silent, warm=True)
    optimizer = create("kfac", alone.model, likelihood="categorical", lr=0.0, **settings)
    optimizer.warm_start(list(alone.warm()))
    optimizer.step(next(alone.closures()))
    averages = study.shadows["x"].optimizer.averages
    for name, state in optimizer.averages.items():
        for key, value in state.items():
            torch.testing.assert_close(averages[name][key], value, rtol=1e-10, atol=1e-12)


def test_a_follower_that_fails_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: KFAC, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        raise NumericalError("the inverse of block 'fc1' failed")

    monkeypatch.setattr(KFAC, "update", fails)
    found = quick(["kfac", "sgd"])
    assert set(found["kfac"].agreements[0].cosine.values()) == {None}
    assert found["sgd"].mean is not None
    assert "kfac: no direction any more: the inverse of block 'fc1' failed" in found.notes

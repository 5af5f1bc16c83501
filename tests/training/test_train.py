"""Runs from Python: what is computed, by whose random numbers, and when a target ends it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from training_runs import entries, left_behind, trained

from curvlab.errors import CommandError
from curvlab.problems.registry import problem
from curvlab.training.run import Run


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(len(name) + seed)  # what was drawn before does not matter
        trained(tmp_path / name, optimizer="tnt", epochs=2, seed=seed)
    a, b, c = (left_behind(tmp_path / name) for name in "abc")
    assert a == b
    assert a[0] != c[0]


def test_the_callers_generators_and_threads_are_left_alone(tmp_path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    trained(tmp_path, optimizer="sgd", epochs=1, threads=1, settings={"lr": 0.1})
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_step_is_the_optimizers_own(tmp_path):
    """Against a loop of ten lines without any of the machinery."""
    trained(tmp_path, optimizer="sgd", epochs=2, settings={"lr": 0.1, "momentum": 0.5}, schedule="linear")
    wine = problem("wine-mlp")
    model, split = wine.build(0), wine.load(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    from curvlab.problems.batches import batches

    step = 0
    for epoch in range(2):
        for x, y in batches(split.train, 26, epoch, 0, last="keep"):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 10)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            step += 1
    saved = load_file(tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(saved[name], value)


def test_a_target_ends_the_run_and_is_still_met_afterwards(tmp_path):
    result = trained(tmp_path, optimizer="kfac", epochs=50, target="test.accuracy>0.9 and train.loss<0.3")
    assert (result.status, result.target["met"]) == ("target-met", True)
    assert result.steps < 50
    again = trained(tmp_path, resume=True)
    assert (again.status, again.steps) == ("target-met", result.steps)


@pytest.mark.parametrize("target", ["damping<1", "device_memory<1e9"])
def test_a_target_on_what_this_run_does_not_have_is_refused(tmp_path, target):
    with pytest.raises(CommandError, match="is null"):
        trained(tmp_path / "r", optimizer="sgd", epochs=1, target=target)
    assert not (tmp_path / "r").exists()


def test_batch_loss_is_the_mean_over_the_epochs_examples(tmp_path, monkeypatch):
    losses = []
    take = Run.take_step

    def watched(run, x, y):
        losses.append((torch.nn.functional.cross_entropy(run.model(x), y).item(), len(x)))
        take(run, x, y)

    monkeypatch.setattr(Run, "take_step", watched)
    trained(tmp_path, optimizer="sgd", epochs=2, batch_size=50)  # 50, 50, 30
    for entry, seen in zip(entries(tmp_path), (losses[:3], losses[3:]), strict=True):
        assert [size for _, size in seen] == [50, 50, 30]
        mean = sum(loss * size for loss, size in seen) / 130
        assert entry["batch_loss"] == pytest.approx(mean, rel=1e-5)


def test_a_lone_last_example_is_left_out(tmp_path, noisy):
    """142 examples in batches of 47 leave one over, which batch normalisation could not take."""
    result = trained(tmp_path / "r", optimizer="sgd", epochs=1, **{**noisy, "batch_size": 47})
    assert result.steps == 3


def test_no_warm_start(tmp_path):
    result = trained(tmp_path, optimizer="tnt", epochs=1, warm_start=False)
    assert result.seconds["warm_start"] == 0


def test_a_step_reads_nothing_from_the_device_beside_the_optimizer(tmp_path, monkeypatch):
    """What the optimizer's own step reads is its contract's; the loop adds nothing to it."""
    reads, ours, take = [], [False], Run.take_step

    def watched(run, x, y):
        step = run.optimizer.step

        def theirs(closure):
            ours[0] = False
            loss = step(closure)
            ours[0] = True
            return loss

        theirs._wrapped_by_lr_sched = True  # the scheduler looks for its own mark
        with monkeypatch.context() as patch:
            patch.setattr(run.optimizer, "step", theirs)
            ours[0] = True
            take(run, x, y)
            ours[0] = False

    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        method = getattr(torch.Tensor, name)

        def spy(tensor, *arguments, kept=method, name=name):
            if ours[0]:
                reads.append(name)
            return kept(tensor, *arguments)

        monkeypatch.setattr(torch.Tensor, name, spy)
    monkeypatch.setattr(Run, "take_step", watched)
    trained(tmp_path / "r", optimizer="sgd", epochs=2)
    assert reads == []
    ours[0] = True
    assert bool(torch.tensor(1.0) > 0)
    assert reads == ["__bool__"]  # the spy was there

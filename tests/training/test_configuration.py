"""From file and command line to settings: who wins, and everything wrong said at once."""

from __future__ import annotations

import pytest

from curvlab.errors import CommandError
from curvlab.training.configuration import configured, continued, folder, fresh
from curvlab.training.settings import TrainingSettings

FILE = """
optimizer = "kfac"
problem = "wine-mlp"
epochs = 7
max_seconds = 5
warm_start = false

[set]
lr = 0.5
rule = "exact"
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(FILE)
    return path


def test_the_command_line_wins_over_the_file(config):
    found = fresh(configured({"epochs": 3, "seed": None, "problem": "digits-cnn"}, ["lr=0.1"], config))
    assert found == TrainingSettings(
        optimizer="kfac",
        problem="digits-cnn",
        epochs=3,
        max_seconds=5,
        warm_start=False,
        settings={"lr": 0.1, "rule": "exact"},
    )


def test_steps_displace_the_epochs_of_the_file_and_an_architecture_its_problem(config):
    found = fresh(configured({"steps": 9, "architecture": "m:f", "data": "wine"}, [], config))
    assert (found.steps, found.epochs, found.problem, found.architecture) == (9, None, None, "m:f")


def test_the_optimizers_own_table(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[optimizer]\nname = "tnt"\nlr = 0.2\nfisher_type = "empirical"\n')
    found = fresh(configured({}, [], path))
    assert (found.optimizer, found.settings) == ("tnt", {"lr": 0.2, "fisher_type": "empirical"})
    assert found.problem == "digits-mlp"
    assert found.folder == "runs/digits-mlp-tnt"


def test_everything_wrong_is_said_at_once(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'epoch = 3\nsteps = "many"\nseed = true\n[set]\ndamping = -1\nlearning_rate = 1\nadapt_damping = 1\n'
    )
    options = {
        "optimizer": "kfac",
        "problem": "wine-mpl",
        "dtype": "half",
        "device": "tpu",
        "schedule": "slow",
        "target": "accuracy>",
        "batch_size": 0,
    }
    with pytest.raises(CommandError) as error:
        configured(options, ["lr", "rule=best"], path)
    text = str(error.value)
    for part in (
        *("option 'epoch', did you mean 'epochs'", "steps is 'many'", "seed is True", "damping is -1"),
        *("no setting 'learning_rate'", "adapt_damping is 1, not true or false", "--set 'lr'", "rule is 'best'"),
        *("did you mean 'wine-mlp'", "dtype is 'half'", "device is 'tpu'", "schedule is 'slow'"),
        *("the target 'accuracy>'", "batch_size is 0"),
    ):
        assert part in text
    assert text.startswith("14 things are wrong: (1) ")
    assert "\n" not in text
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "no optimizer is given"),
        ({"optimizer": "sgd", "epochs": 1, "steps": 1}, "epochs or of steps"),
        ({"optimizer": "sgd", "architecture": "m:f"}, "needs data"),
        ({"optimizer": "sgd", "architecture": "m", "data": "wine"}, "package.module:callable"),
        ({"optimizer": "sgd", "architecture": "m:f", "data": "wine", "problem": "wine-mlp"}, "not both"),
        ({"optimizer": "sgd", "loss": "mse"}, "loss belongs to an architecture"),
        ({"optimizer": "sgd", "loss": "l1", "architecture": "m:f", "data": "d"}, "loss is 'l1'"),
        ({"optimizer": "sgdm"}, "did you mean 'sgd'"),
        ({"optimizer": "sgd", "save_factors": True}, "keeps no factors"),
        ({"optimizer": "sgd", "target": "test.reconstruction_error<1"}, "did you mean|but loss, accuracy"),
        ({"optimizer": "sgd", "max_seconds": 0}, "max_seconds is 0"),
        ({"optimizer": "sgd", "max_seconds": float("nan")}, "max_seconds is nan"),
        ({"optimizer": "sgd", "epochs": True}, "epochs is True"),
        ({"optimizer": "sgd", "seed": -1}, "seed is -1"),
        ({"optimizer": "sgd", "out": ""}, "out is ''"),
        ({"optimizer": "sgd", "settings": {"lr": "fast"}}, "lr is 'fast'"),
        ({"optimizer": "sgd", "settings": {"lr": float("inf")}}, "lr is inf"),
        ({"optimizer": "sgd", "settings": {"lr": None}}, "lr is None"),
        ({"optimizer": "kfac", "settings": {"step_size": "mvp"}, "schedule": "cosine"}, "would change nothing"),
        ({"optimizer": "kfac", "settings": {"step_size": "mvp", "norm_constraint": 1e-3}}, "with step_size=fixed only"),
        ({"optimizer": "sgd", "fail_if": "steps > 1"}, "not a list of words"),
        ({"optimizer": "sgd", "fail_if": ("steps >",)}, "the gate 'steps >' is not an expression"),
        ({"optimizer": "sgd", "fail_if": ("any.rank > 1",)}, "the gate 'any.rank > 1' asks for"),
        ({"optimizer": "sgd", "fail_if": ("test.acuracy > 1",)}, "did you mean 'accuracy'"),
        ({"optimizer": "sgd", "max_memory": "8GiB"}, "max_memory is '8GiB'"),
    ],
)
def test_what_is_refused(values, sentence):
    with pytest.raises(CommandError, match=sentence):
        fresh(values)


def test_the_dataclass_refuses_too():
    with pytest.raises(CommandError, match="2 things are wrong"):
        TrainingSettings("sgd", epochs=0, dtype="int8")


@pytest.mark.parametrize("text", ["= 3", "a = [", "\udcff"])
def test_a_file_that_is_no_toml(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CommandError, match="is not TOML"):
        configured({"optimizer": "sgd"}, [], path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CommandError, match=r"^--config '.*none\.toml' cannot be read: No such file or directory$"):
        configured({}, [], tmp_path / "none.toml")


def test_a_setting_outside_its_table_is_told_where_it_belongs(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('optimizer = "sgd"\nlr = 0.1\n')
    with pytest.raises(CommandError, match=r"'lr' is a setting of the optimizer, put it into the table \[set\]$"):
        configured({}, [], path)


def test_a_misspelt_optimizer_hides_nothing_of_its_settings(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('optimizr = "kfac"\n[set]\nlr = -1\nfoo = 1\n')
    with pytest.raises(CommandError, match=r"^3 things are wrong: ") as error:
        configured({}, [], path)
    for part in ("did you mean 'optimizer'", "lr is -1", "no setting 'foo'"):
        assert part in str(error.value)


def test_none_as_it_is_listed(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('optimizer = "kfac"\n[set]\nnorm_constraint = "none"\n')
    for values in (configured({}, [], path), configured({"optimizer": "kfac"}, ["norm_constraint=none"], None)):
        assert fresh(values).settings == {"norm_constraint": None}


def test_the_gates_of_a_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('optimizer = "sgd"\nfail_if = ["steps > 3", "skipped > 0"]\nmax_memory = 8_000_000\n')
    found = fresh(configured({}, [], path))
    assert (found.fail_if, found.max_memory) == (("steps > 3", "skipped > 0"), 8_000_000)
    assert fresh(configured({"fail_if": ("steps > 9",)}, [], path)).fail_if == ("steps > 9",)


SAVED = TrainingSettings("kfac", problem="wine-mlp", epochs=5, seed=3, settings={"damping": 0.2}).to_dict()
USED = {"lr": 0.03, "damping": 0.2, "seed": 3}


def test_a_run_goes_on_with_what_it_had():
    assert continued({}, SAVED, USED).to_dict() == SAVED
    again = {"optimizer": "kfac", "problem": "wine-mlp", "seed": 3, "settings": {"lr": 0.03}}
    assert continued(again, SAVED, USED).to_dict() == SAVED
    longer = continued({"steps": 100, "target": "test.accuracy>0.9", "max_seconds": 9}, SAVED, USED)
    assert (longer.epochs, longer.steps, longer.target, longer.max_seconds) == (None, 100, "test.accuracy>0.9", 9)


def test_another_run_does_not_go_on_and_every_difference_is_named():
    given = {"optimizer": "tnt", "seed": 4, "batch_size": 9, "settings": {"lr": 0.1, "damping": 0.2}}
    with pytest.raises(CommandError) as error:
        continued(given, SAVED, USED)
    text = str(error.value)
    for part in ("optimizer kfac, not tnt", "seed 3, not 4", "batch_size None, not 9", "lr=0.03, not 0.1"):
        assert part in text
    assert "damping" not in text


def test_a_schedule_that_knows_its_end_cannot_be_made_longer():
    saved = {**SAVED, "schedule": "cosine"}
    with pytest.raises(CommandError, match="on which the schedule 'cosine' depends"):
        continued({"epochs": 9}, saved, USED)
    assert continued({"epochs": 5, "max_seconds": 3}, saved, USED).epochs == 5


def test_where_a_run_is():
    assert str(folder({"out": "x"})) == "x"
    assert str(folder({"optimizer": "sgd", "problem": "wine-mlp"})) == "runs/wine-mlp-sgd"
    assert str(folder({"optimizer": "sgd", "architecture": "a.b:c", "data": "wine"})) == "runs/a.b.c-sgd"
    with pytest.raises(CommandError, match="does not know which run"):
        folder({"problem": "wine-mlp"})

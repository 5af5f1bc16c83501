"""Problems by name: the built-in ones, those of plugins, and what is said when there is none."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace

import pytest

from curvlab import plugins
from curvlab.errors import CommandError
from curvlab.problems import PROBLEMS, register
from curvlab.problems.registry import load_problems, names, problem

BUILT_IN = {
    *("digits-mlp", "digits-autoencoder", "digits-cnn", "digits-linear", "wine-mlp", "diabetes-mlp"),
    *("mnist-autoencoder", "fashion-mlp", "fashion-cnn"),
    *("factorisation", "digits-wide-mlp", "digits-inverted-wide-mlp", "digits-mlp-4x100"),
    *("digits-vit", "cifar-vit", "digits-cnn9", "cifar-cnn9", "shapes-unet", "voc-unet", "text-transformer"),
}
STRANGER = """
from dataclasses import replace
from curvlab.problems import register
from curvlab.problems.registry import problem
register(replace(problem("digits-linear"), name="strange-linear"))
"""


@pytest.fixture
def own_table():
    """What a test registers is gone after it."""
    before = set(PROBLEMS)
    yield
    for name in set(PROBLEMS) - before:
        PROBLEMS.forget(name)


def test_every_built_in_problem_is_found_by_its_name():
    assert set(names()) >= BUILT_IN
    for name in BUILT_IN:
        assert problem(name).name == name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("digit-mlp", "there is no problem 'digit-mlp'; did you mean 'digits-mlp'"),
        ("Fashion-CNN", "there is no problem 'Fashion-CNN'; did you mean 'fashion-cnn'"),
    ],
)
def test_a_slip_is_answered_by_the_name_that_was_meant(wrong, said):
    with pytest.raises(CommandError) as error:
        problem(wrong)
    assert str(error.value) == said


def test_anything_else_is_answered_by_all_names():
    with pytest.raises(CommandError) as error:
        problem("?")
    assert all(name in str(error.value) for name in BUILT_IN)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("own_table")
def test_a_name_belongs_to_one_problem():
    known = problem("digits-mlp")
    assert register(known) is known
    with pytest.raises(ValueError, match="'digits-mlp' is registered already"):
        register(replace(known, epochs=1))


@pytest.mark.usefixtures("own_table")
def test_a_package_brings_its_own_problem(tmp_path, monkeypatch):
    (tmp_path / "plugin_strange_problems.py").write_text(STRANGER)
    info = tmp_path / "curvlab_strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: curvlab-strange\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[curvlab.problems]\nstrange = plugin_strange_problems\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    plugins.load.cache_clear()
    try:
        assert problem("strange-linear").batch_size == problem("digits-linear").batch_size
        (brought,) = [plugin for plugin in load_problems() if plugin.name == "strange"]
        assert (brought.distribution, brought.error) == ("curvlab-strange 1.0", None)
    finally:
        plugins.load.cache_clear()
        sys.modules.pop("plugin_strange_problems", None)


def test_names_are_listed_without_torch():
    code = "import sys; from curvlab.problems.registry import names; assert names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [({"targets": "classes"}, "targets is 'classes'"), ({"epochs": 0}, "epochs is 0"), ({"test_size": 0}, "test_size")],
)
def test_a_problem_that_cannot_be_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        replace(problem("digits-mlp"), **change)

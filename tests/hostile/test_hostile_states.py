"""States of runs that somebody forged, checksum and all: one sentence, before anything is loaded, said or written."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import trained

from curvlab.errors import CurvlabError
from curvlab.optim import OPTIMIZERS
from curvlab.reports.training_figures import training_figures
from curvlab.training.run_folder import RunFolder
from curvlab.training.state_file import _MAGIC, MAX_DEPTH, read_state, write_state
from curvlab.training.train import Start, train


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five steps."""
    out = tmp_path_factory.mktemp("sound") / "r"
    trained(out, optimizer="kfac", steps=5, problem="wine-mlp")
    return out


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(sound, tmp_path / "r"))


def bytes_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(folder: Path, **values: Any) -> str:
    """The sentence with which going on is refused; before it nothing was said or written."""
    before, said = bytes_of(folder), list[str]()
    with pytest.raises(CurvlabError) as caught:
        train({"out": str(folder), "steps": 10, **values}, Start(resume=True), note=said.append)
    assert said == []
    assert bytes_of(folder) == before
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 1500
    return sentence


def part(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, name: value}


def within(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, name: {**state[name], key: value}}


def weights(change: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, "model": {name: change(one) for name, one in state["model"].items()}}


def group(key: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def changed(state: dict[str, Any]) -> dict[str, Any]:
        groups = [{**one, key: value} for one in state["optimizer"]["param_groups"]]
        return {**state, "optimizer": {**state["optimizer"], "param_groups": groups}}

    return changed


NO_NETWORK = "the network is not the one of the run"
FORGED: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "list as model": (part("model", [1, 2]), "'model' is not a table"),
    "numbers as weights": (weights(lambda _: 3), NO_NETWORK),
    "other shapes": (weights(lambda one: one[None]), NO_NETWORK),
    "other types": (weights(torch.Tensor.double), NO_NETWORK),
    "one weight too many": (within("model", "evil", torch.ones(3)), NO_NETWORK),
    "text as step": (part("step", "five"), "'step' is not a number of steps"),
    "truth as step": (part("step", True), "'step' is not a number of steps"),
    "huge step": (part("step", 2**80), "'step' is not a number of steps"),
    "negative step": (part("step", -3), "'step' is not a number of steps"),
    "step beyond the budget": (part("step", 6), "it is after step 6 of 5"),
    "step before the warm start": (part("warm", False), "before its warm start"),
    "negative length of the log": (part("logged", -1), "'logged' is not a number of bytes"),
    "length within a line": (lambda state: {**state, "logged": state["logged"] - 2}, "no end of a line at byte"),
    "length beyond the log": (part("logged", 10**9), "lines are missing"),
    "text as skipped": (part("skipped", "many"), "'skipped' is not a number of steps"),
    "negative skipped": (part("skipped", -1), "'skipped' is not a number of steps"),
    "fingerprint": (part("fingerprint", "x" * 64), "'fingerprint' is not a sha256"),
    "rate that is not finite": (part("lr", math.inf), "'lr' is not a rate"),
    "settings": (part("settings", {"optimizer": "sgd"}), "'settings' is not a table of settings"),
    "settings of other types": (within("settings", "epochs", "many"), "epochs is 'many'"),
    "settings that are tables": (within("settings", "device", {"a": 1}), "'settings' is not a table of settings"),
    "settings of another world": (within("settings", "optimizer", "magic"), "there is no optimizer 'magic'"),
    "threads": (within("settings", "threads", 10**9), "threads is 1000000000"),
    "device": (within("settings", "device", "/dev/zero"), "device is '/dev/zero'"),
    "memory": (within("settings", "max_memory", -5), "max_memory is -5"),
    "escape sequences": (within("settings", "loss", "\x1b[2J\nred"), "loss is "),
    "arguments": (within("used", "model", 3), "kfac has no setting 'model'"),
    "values of arguments": (within("used", "lr", "fast"), "lr is 'fast'"),
    "entry": (part("entry", {"step": 1}), "'entry' is not a line of metrics"),
    "entry of later": (lambda state: {**state, "entry": {**state["entry"], "step": 9}}, "is of a later step"),
    "best": (part("best", {"step": 1, "epoch": 1, "test": {"loss": "low"}}), "'best' is not an evaluation"),
    "losses": (within("losses", "bad", [1, 2]), "'losses' is not sums of losses"),
    "seconds": (within("seconds", "train", math.nan), "'seconds' is not seconds by activity"),
    "attributes of the schedule": (within("scheduler", "optimizer", 3), "its schedule is not the run's"),
    "place in the schedule": (within("scheduler", "last_epoch", 3), "its schedule is not the run's"),
    "generator": (within("generators", "cpu", torch.zeros(9, dtype=torch.uint8)), "its random generator is another"),
    "generator of floats": (within("generators", "cpu", torch.zeros(5056)), "'generators' is not"),
    "optimizer": (part("optimizer", [3]), "'optimizer' is not a table"),
    "groups": (within("optimizer", "param_groups", 3), "other groups of parameters"),
    "text as rate": (group("lr", "fast"), "other groups of parameters"),
    "parameters of others": (group("params", ["evil"]), "other groups of parameters"),
    "another key": (group("evil", 1), "other groups of parameters"),
    "another optimizer": (within("optimizer", "optimizer", "sgd"), "does not fit|cannot be loaded"),
    "state of the optimizer": (within("optimizer", "state", 3), "does not fit"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged(run: Path, name: str) -> None:
    change, words = FORGED[name]
    path = RunFolder(run).state
    write_state(path, change(read_state(path)))
    assert any(one in refusal(run) for one in words.split("|"))


def test_a_part_that_is_missing(run: Path) -> None:
    path = RunFolder(run).state
    for name in read_state(path):
        state = read_state(path)
        write_state(path, {key: value for key, value in state.items() if key != name})
        assert "is not a training state of this version of curvlab" in refusal(run)
        write_state(path, state)


def deep(change: Callable[[Any], Any], *path: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The state with what stands at a place in its optimizer's changed."""

    def changed(tree: Any, rest: tuple[Any, ...]) -> Any:
        if not rest:
            return change(tree)
        if isinstance(tree, dict):
            return {**tree, rest[0]: changed(tree[rest[0]], rest[1:])}
        return [changed(one, rest[1:]) if place == rest[0] else one for place, one in enumerate(tree)]

    return lambda state: changed(state, ("optimizer", *path))


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda table: {name: one for name, one in table.items() if name != key}


FACTOR = ("operators", "fc1", "value", "factors", 1, "stack")
INSIDE: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "momentum of one": (deep(lambda one: one[:1, :1].clone(), "state", "fc1.weight", "momentum"), "shape (1, 1)"),
    "momentum of doubles": (deep(torch.Tensor.double, "state", "fc1.weight", "momentum"), "torch.float64"),
    "number as momentum": (deep(lambda _: 3, "state", "fc1.weight", "momentum"), "is of the type int"),
    "moment of another layer": (deep(lambda one: one[:, :5, :5].clone(), "averages", "fc1", "input"), "(1, 5, 5)"),
    "inverse, used at steps 2 to 19": (deep(lambda one: one[:, :1, :1].clone(), *FACTOR), "shape (1, 1, 1)"),
    "moment that is not there": (deep(without("input"), "averages", "fc1"), "lacks its entry 'input'"),
    "moment too many": (deep(lambda one: {**one, "x\x1b": one["input"]}, "averages", "fc1"), "an entry 'x\\x1b'"),
    "block of nothing": (deep(lambda one: {**one, "evil": one["fc1"]}, "averages"), "an entry 'evil'"),
    "table as count": (deep(lambda _: {}, "measured"), "'measured' is a table"),
    "text as count": (deep(lambda _: "many", "measured"), "'measured' is of the type str"),
    "factors too many": (deep(lambda one: [*one, one[0]], *FACTOR[:-2]), "has 3 items"),
    "operator of nothing": (deep(lambda _: "Evil", "operators", "fc1", "value", "operator"), "'Evil'"),
    "operator of no size": (
        deep(lambda _: {"operator": "Diagonal", "values": torch.ones(3)}, "operators", "fc1", "value"),
        "has 3 rows, and the network needs 224",
    ),
}


@pytest.mark.parametrize("name", INSIDE)
def test_inside_of_the_state_of_the_optimizer(run: Path, name: str) -> None:
    """Shapes and types are those that the network needs, in what is used at the next step and in what is used later."""
    change, words = INSIDE[name]
    path = RunFolder(run).state
    write_state(path, change(read_state(path)))
    assert words in refusal(run)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_tensor_of_every_optimizer(tmp_path: Path, optimizer: str) -> None:
    trained(tmp_path, optimizer=optimizer, steps=3)
    path = RunFolder(tmp_path).state
    state = read_state(path)
    places = list(tensors(state["optimizer"], ()))
    assert places or optimizer == "sgd"
    for place in places[:: max(1, len(places) // 6)]:
        write_state(path, deep(lambda one: torch.ones(*one.shape, 2, dtype=one.dtype), *place)(state))
        assert "has the shape" in refusal(tmp_path), place


def tensors(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Paths of all tensors in a tree."""
    if isinstance(value, torch.Tensor):
        yield path
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from tensors(one, (*path, key))


def sealed(body: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(body).digest() + body


def tree(value: Any, rest: bytes = b"") -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text + rest


def zipped(megabytes: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(megabytes * 2**20))
    return content.getvalue()


def tensor(shape: list[Any], strides: list[Any], kind: str = "float32") -> dict[str, Any]:
    return {"table": [["a", {"tensor": [kind, shape, strides]}]]}


BODIES = {
    "zip bomb": (zipped(100), "its values would take"),
    "nothing": (b"", "checksum|damaged"),
    "length": ((2**62).to_bytes(8, "little"), "its values would take 4,611,686,018,427,387,904 bytes"),
    "depth": (tree(b"[" * 10**6), "not JSON"),
    "depth within bounds of JSON": (tree(b"[" * 500 + b"]" * 500), f"more than {MAX_DEPTH} deep"),
    "digits": (tree(b"9" * 5000), "not JSON"),
    "no table": (tree([1]), "not a table"),
    "unknown kind": (tree({"evil": 1}), "no known kind"),
    "two kinds": (tree({"tuple": [], "table": []}), "no known kind"),
    "key twice": (tree({"table": [["a", 1], ["a", 2]]}), "a key twice"),
    "key that is none": (tree({"table": [[[], 1]]}), "a key twice"),
    "tensor that is not there": (tree(tensor([2**40], [1])), "ends before its tensors"),
    "tensor of overflowing size": (tree(tensor([2**47, 2**47], [2**47, 1])), "ends before its tensors"),
    "expanded tensor": (tree(tensor([2**20, 2**20], [0, 0]), bytes(256)), "ends before its tensors"),
    "strides beyond": (tree(tensor([2, 2], [1000, 1]), bytes(16 + 64)), "gaps|not those of its tensors"),
    "negative": (tree(tensor([-1], [1])), "shape that cannot be"),
    "empty and huge": (tree(tensor([0, 2**60], [1, 1])), "shape that cannot be"),
    "no type": (tree(tensor([1], [1], "object")), "no known kind"),
    "trailing bytes": (tree({"table": []}, b"more"), "not those of its tensors"),
}


@pytest.mark.parametrize("name", BODIES)
def test_sealed_bodies(run: Path, name: str) -> None:
    body, words = BODIES[name]
    RunFolder(run).state.write_bytes(sealed(body))
    tracemalloc.start()
    try:
        sentence = refusal(run)
        assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    finally:
        tracemalloc.stop()
    assert any(one in sentence for one in words.split("|")), sentence


@pytest.mark.parametrize(
    "line",
    ["{", "3", "[" * 10**5, '{"step": 1}', '{"step": ' + "9" * 5000 + "}", "{}" * 10**6],
    ids=["cut", "number", "depth", "keys", "digits", "length"],
)
def test_lines_of_metrics_that_are_none(run: Path, line: str) -> None:
    result = trained(run, resume=True, steps=5)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CurvlabError, match=r"line 2 of '.*metrics\.jsonl' is no line of metrics") as caught:
        list(training_figures(result))
    assert "\n" not in str(caught.value)

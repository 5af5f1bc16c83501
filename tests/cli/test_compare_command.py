"""`curvlab compare`: tables, JSON, figures, and what it says of a wrong command line."""

from __future__ import annotations

import json

import pytest
from race_runs import in_this_process

QUICK = ("--problem", "wine-mlp", "--steps", "3", "--threads", "1")


def test_a_table_a_document_and_figures(inside, tmp_path):
    done = inside(
        "compare",
        "--optimizers",
        "kfac,small=kfac,sgd",
        "--set",
        "small.damping=0.001",
        *QUICK,
        "--damping",
        "1e-3:1:3",
        "--json",
        str(tmp_path / "c.json"),
        "--plots",
        str(tmp_path / "plots"),
    )
    assert done.returncode == 0, done.stderr
    assert "Directions beside block-fisher" in done.stdout
    assert "small" in done.stdout
    assert "Mean cosine by damping" in done.stdout
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["schema"] == "curvlab.comparison/1"
    assert (document["problem"], document["baseline"], document["steps"]) == ("wine-mlp", "block-fisher", 3)
    assert list(document["optimizers"]) == ["kfac", "small", "sgd"]
    assert document["optimizers"]["small"]["settings"]["damping"] == 0.001
    kfac = document["optimizers"]["kfac"]
    assert list(kfac["cosine"]) == list(kfac["mean_cosine"]) == ["fc1", "fc2"]
    assert all(len(values) == 3 for values in kfac["cosine"].values())
    assert kfac["mean"] == pytest.approx(sum(kfac["mean_cosine"].values()) / 2)
    assert [point["value"] for point in kfac["damping"]] == pytest.approx([0.001, 0.03162, 1.0], rel=1e-3)
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "cosine-by-damping.png",
        "cosine-by-damping.svg",
        "cosine.png",
        "cosine.svg",
    ]


def test_json_on_stdout_is_alone_there(inside):
    done = inside("compare", "--optimizers", "sgd", *QUICK, "--json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["optimizers"]["sgd"]["mean"] is not None


def test_a_race(inside, monkeypatch):
    in_this_process(monkeypatch)
    done = inside(
        "compare",
        "--mode",
        "training",
        "--problem",
        "wine-mlp",
        "--optimizers",
        "adam,sgd",
        "--epochs",
        "2",
        "--seeds",
        "0,1",
        "--target",
        "train.loss<10",
        "--json",
        "-",
        "--threads",
        "1",
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["optimizers"] == {}
    for name in ("adam", "sgd"):
        seeds = document["training"][name]["seeds"]
        assert len(seeds) == 2
        assert all(one["time_to_target"] is not None and not one["diverged"] for one in seeds)
    assert document["race"]["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--optimizers", "kfak"), 2, "there is no optimizer 'kfak'"),
        (("--optimizers", "kfac", "--set", "damping=1"), 2, "is not an assignment"),
        (("--optimizers", "kfac", "--damping", "a:b"), 2, "--damping 'a:b' is no range"),
        (("--optimizers", "kfac", "--seeds", "x"), 2, "--seeds 'x' is no list of whole numbers"),
        (("model.pt", "--problem", "wine-mlp"), 2, "a comparison is of one of them"),
        (("missing.safetensors", "--optimizers", "kfac"), 1, "missing.safetensors"),
        (("--problem", "no-such-problem", "--optimizers", "kfac"), 2, "no-such-problem"),
    ],
)
def test_what_is_wrong_is_one_sentence(inside, arguments, code, said):
    done = inside("compare", *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_gates(inside):
    arguments = ("--optimizers", "a-b=kfac", *QUICK, "--fail-if", '"a-b".mean<0.01')
    done = inside("compare", *arguments)
    assert (done.returncode, "gate" in done.stderr) == (0, False), done.stderr
    done = inside("compare", *arguments, "--fail-if", '"a-b".mean_cosine.fc1<2')
    assert done.returncode == 3, done.stderr
    assert "mean_cosine.fc1<2' holds" in done.stderr
    assert "Directions beside" in done.stdout
    done = inside("compare", *arguments, "--fail-if", '"a-b".maen<0.5')
    assert done.returncode == 2, done.stderr
    assert "did you mean 'mean'" in done.stderr


def test_a_plan_computes_nothing(inside):
    done = inside(
        "compare", "--optimizers", "kfac,sgd", *QUICK, "--mode", "both", "--seeds", "0,1", "--dry-run", "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(one["name"], one["parameters"], one["block_bytes"]) for one in document["layers"]] == [
        ("fc1", 13 * 16 + 16, 4 * 224**2),
        ("fc2", 16 * 3 + 3, 4 * 51**2),
    ]
    assert len(document["runs"]) == 4
    shown = inside("compare", "--optimizers", "kfac", *QUICK, "--dry-run")
    assert "nothing was computed" in shown.stdout
    assert "exact Fisher block" in shown.stdout


def test_cosines_as_csv(inside):
    done = inside("compare", "--optimizers", "sgd", *QUICK, "--csv", "-")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "optimizer,layer,step,cosine,fisher_cosine,predicted_decrease"
    assert [line.split(",")[:3] for line in lines[1:3]] == [["sgd", "fc1", "1"], ["sgd", "fc2", "1"]]
    assert len(lines) == 1 + 2 * 3


OWN = ("--architecture", "mynet:build", "--data", "digits")


def test_a_race_on_a_network_of_ones_own(inside, monkeypatch, tmp_path):
    in_this_process(monkeypatch)
    race = ("--mode", "training", "--epochs", "1", "--optimizers", "sgd,adam", "--threads", "1")
    done = inside("compare", *OWN, *race, "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert "Race on mynet:build" in done.stdout
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["problem"] == "mynet:build"
    assert len(document["training"]["sgd"]["seeds"][0]["loss"]) == 2


def test_directions_on_a_network_of_ones_own(inside):
    done = inside("compare", *OWN, "--steps", "2", "--optimizers", "sgd,kfac", "--json", "-")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["problem"], list(document["optimizers"]["kfac"]["cosine"])) == ("mynet:build", ["1", "3"])


@pytest.mark.parametrize(
    "options",
    [
        ("--architecture", "mynet:build"),
        (*OWN, "--problem", "digits-mlp"),
        ("--loss", "mse"),
        ("--trust",),
        ("--seed", "0", "--seeds", "1"),
        ("--epochs", "1"),
        ("--mode", "training", "--interval", "3"),
        ("--mode", "training", "--no-warm-start"),
        ("--mode", "training", "--baseline", "sgd"),
        ("--mode", "training", "--layers", "fc1"),
        ("--mode", "training", "--damping", "0.1:1:2"),
        ("--mode", "training", "--set", "block-fisher.damping=1"),
        ("--mode", "training", "--csv", "-"),
        ("--dry-run", "--csv", "c.csv"),
        ("--dry-run", "--plots", "p"),
        ("--dry-run", "--fail-if", "sgd.mean<1"),
    ],
    ids=" ".join,
)
def test_an_option_without_effect_is_code_2(inside, options):
    done = inside("compare", "--optimizers", "sgd", *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1

"""Every Python block of the README and the docs runs, and every curvlab command in them is one that exists."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import copies
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("plugins/*/README.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


PYTHON = [(page, i) for page in PAGES for i in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(
    ("page", "number"), PYTHON, ids=lambda v: str(v) if isinstance(v, int) else v.parent.name + "/" + v.stem
)
def test_python_blocks_run(page: Path, number: int, tmp_path: Path) -> None:
    code = blocks(page, "python")[number]
    if ">>> " in code:
        code = (
            "import sys\nfrom doctest import DocTestParser, DocTestRunner\n"
            f"test = DocTestParser().get_doctest({code!r}, {{}}, 'page', 'page', 0)\n"
            "sys.exit(DocTestRunner().run(test).failed > 0)\n"
        )
    code = code.replace("/tmp/", f"{tmp_path}/")
    done = copies.run("-c", code, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def commands(page: Path) -> list[str]:
    found = []
    for block in [*blocks(page, "console"), *blocks(page, "sh")]:
        found += [line[2:].split("  #")[0].strip() for line in block.splitlines() if line.startswith("$ curvlab ")]
    return found


TRAINS = [page for page in PAGES if any(command.startswith("curvlab train") for command in commands(page))]
OWN_FOLDERS = ROOT / "docs" / "models.md"
"""Its commands speak of folders that the page makes: test_model_page.py runs them there."""
LOOKS = sorted(
    {c for page in PAGES if page != OWN_FOLDERS for c in commands(page) if not c.startswith("curvlab train")}
)


SHORTER = {
    "curvlab train --problem text-transformer --optimizer adamw --out runs/text": "--steps 3",
    "curvlab compare --optimizers lnb,kfac,tnt": "--steps 3",
    "curvlab compare --mode training --problem wine-mlp --optimizers kfac,adam --epochs 5 --seeds 0,1,2 "
    "--target 'train.loss<0.2'": "--optimizers kfac --seeds 0",
    "curvlab compare --mode training --problem wine-mlp --optimizers sgd,kfac --epochs 3 --target 'train.loss<0.3'": (
        "--optimizers sgd"
    ),
    "curvlab train --optimizer fop --problem digits-cnn9 --set hyper_lr=1e-3 --epochs 20 --snapshots 2 "
    "--out runs/fop-digits-cnn9": "--epochs 2",
}
"""What is added here to commands that take many seconds, so that they do less of the same."""


def curvlab(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command of the docs in that folder, finished."""
    words = shlex.split(f"{command} {SHORTER.get(command, '')}")[1:]
    return copies.run("-m", "curvlab_cli", *words, cwd=cwd, timeout=300)


def test_the_commands_that_are_shortened_are_there() -> None:
    assert set(SHORTER) <= {command for page in PAGES for command in commands(page)}


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with what the docs' commands speak of: a network, data for it, and a file of options."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5))\n"
    )
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "photos.npz", x=generator.random((60, 3, 4, 4), np.float32), y=generator.integers(0, 5, 60))
    (tmp_path / "run.toml").write_text('problem = "wine-mlp"\noptimizer = "kfac"\nepochs = 3\n\n[set]\ndamping = 0.3\n')
    return tmp_path


@pytest.mark.parametrize("page", TRAINS, ids=lambda page: page.stem)
def test_training_commands_work_one_after_the_other(page: Path, workplace: Path) -> None:
    for command in commands(page):
        if command.startswith("curvlab train"):
            done = curvlab(command, workplace)
            assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.parametrize("command", LOOKS)
def test_commands_are_parsed(command: str) -> None:
    """A command of the docs is understood: on files that are not here it fails with 1, never with 2."""
    done = curvlab(command, ROOT)
    here = not any(name in command for name in ("model.", "mynet"))
    assert done.returncode == (0 if here else 1), done.stderr


def test_the_output_in_the_readme_is_the_output() -> None:
    """Same layers, columns and counts; measured digits may differ from machine to machine."""

    def skeleton(text: str) -> list[str]:
        without = re.sub(r"[-+±<>~]*\d[\d.,e+×%]*|∞|\s+", " ", text)
        return sorted(set(re.findall(r"[A-Za-zκλμσπ]{2,}\w*", without)))

    (shown,) = [b for b in blocks(ROOT / "README.md", "console") if "analyze examples/digits-cnn.safetensors\n" in b]
    command, _, printed = shown.partition("\n")
    done = curvlab(command.removeprefix("$ "), ROOT)
    assert done.returncode == 0, done.stderr
    assert skeleton(printed) == skeleton(done.stdout)

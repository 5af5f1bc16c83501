"""Every script in examples/ runs to its end, at its cheapest settings, and prints what it is for."""

from __future__ import annotations

import os
from pathlib import Path

import copies
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SETTINGS: dict[str, list[str]] = {
    "ewc.py": [],
    "fisher_merge.py": ["--seeds", "1"],
    "fop_booth_himmelblau.py": [],
    "fop_ranks.py": ["--epochs", "1", "--seeds", "1", "--lr", "0.01"],
    "fop_robustness.py": ["--epochs", "1", "--seeds", "1"],
    "gptq_step.py": [],
    "laplace.py": [],
    "lnb_curves.py": ["--quick"],
    "lnb_factorisation.py": ["--quick"],
    "lnb_inverted_digits.py": ["--quick"],
    "train_digits_cnn.py": ["--epochs", "1"],
}
SAYS = {
    "compare_directions.py": "K-FAC",
    "ewc.py": "B after A, EWC",
    "fisher_merge.py": "the better one 1 times of 1",
    "fop_booth_himmelblau.py": "Himmelblau",
    "fop_ranks.py": "fop, k = 16",
    "gptq_step.py": "by GPTQ",
    "laplace.py": "noise",
    "lnb_curves.py": "U-Net on shapes",
    "lnb_factorisation.py": "below Adam's best",
    "lnb_inverted_digits.py": "best of adam",
    "kbfgs_ablation.py": "K-BFGS-20",
    "train_digits_cnn.py": "saved to",
}
WITH_PLOT = ("fop_booth_himmelblau.py", "lnb_curves.py")


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_it_runs(script: str, tmp_path: Path) -> None:
    arguments = list(SETTINGS.get(script, ["--quick"]))
    if script == "train_digits_cnn.py":
        arguments += ["--out", str(tmp_path / "trained.safetensors")]
    if script in WITH_PLOT:
        arguments += ["--plot", str(tmp_path / "plot.png")]
    done = copies.run(str(EXAMPLES / script), *arguments, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert SAYS.get(script, "") in done.stdout
    assert done.stdout
    if script in WITH_PLOT:
        assert (tmp_path / "plot.png").stat().st_size > 10_000

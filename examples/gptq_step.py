"""A GPTQ step from a factor file: a layer rounded to 4 bits by its H = M, the second moment of its inputs.

    python examples/gptq_step.py

Column after column of W is rounded, and what is lost is made up for by the columns that are not rounded yet, as well
as their correlation with this one allows (Frantar et al. 2023, Algorithm 1, in blocks of one column).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import curvlab
from curvlab.data import load

MODEL = Path(__file__).with_name("digits-cnn.safetensors")


def rounded(w: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The nearest of 2^bits multiples of a row's scale."""
    half = 2 ** (bits - 1)
    return (w / scale).round().clamp(-half, half - 1) * scale


def gptq(weight: Tensor, h: Tensor, bits: int = 4, damping: float = 0.01) -> Tensor:
    """Ŵ on a grid of 2^bits values per row, with tr((W − Ŵ) H (W − Ŵ)ᵀ) kept small; `damping` is GPTQ's percdamp."""
    w, scale = weight.clone(), weight.abs().amax(1) / (2 ** (bits - 1) - 1)
    damped = h + damping * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    for j in range(w.shape[1]):
        original = w[:, j].clone()
        w[:, j] = rounded(original, scale, bits)
        w[:, j + 1 :] -= torch.outer((original - w[:, j]) / u[j, j], u[j, j + 1 :])
    return w


def error(weight: Tensor, approximate: Tensor, m: Tensor) -> float:
    """√(E‖(W − Ŵ)a‖² / E‖Wa‖²), since E‖Xa‖² = tr(X M Xᵀ)."""
    lost, whole = (torch.einsum("oi,ij,oj->", x, m, x) for x in (weight - approximate, weight))
    return float((lost / whole).sqrt())


def main(arguments: list[str] | None = None) -> None:
    """Print both errors of two layers, on the data of the moments and on data they have not seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, default=4)
    bits = parser.parse_args(arguments).bits
    digits = load("digits")
    halves = (digits.x[:1200], digits.y[:1200]), (digits.x[1200:], digits.y[1200:])
    with tempfile.TemporaryDirectory() as folder:
        moments = []
        for place, half in enumerate(halves):
            path = Path(folder) / f"{place}.safetensors"
            curvlab.analyze(MODEL, half, analyses=("factors",), fisher_type="forward-only", factors=str(path))
            factors = curvlab.load_factors(path)
            moments.append({name: factors[name].second_moment for name in ("7", "9")})
    seen, unseen = moments
    for name in ("7", "9"):
        weight = curvlab.load(MODEL).tensors[f"{name}.weight"].double()
        nearest = rounded(weight, weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1), bits)
        solved = gptq(weight, seen[name], bits)
        for words, m in (("calibration", seen[name]), ("held out", unseen[name])):
            fed_back, plain = error(weight, solved, m), error(weight, nearest, m)
            print(f"layer {name}, {words:11}: output error {fed_back:.2%} by GPTQ, {plain:.2%} to the nearest")
            assert fed_back < plain, "GPTQ must lose less"


if __name__ == "__main__":
    main()

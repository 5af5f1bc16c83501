"""All spectra of the K-FAC factors of the MLP, against curvlinops' eigendecompositions of the same factors.

An inner function is timed here, without the pass that collects the factors: what a user calls is in `profiles`.
"""

from __future__ import annotations

import torch

from benchmarks.factors import gradient
from benchmarks.networks import mlp
from benchmarks.timing import alternate, show
from curvlab.analyses.data_pass import of_layer
from curvlab.analyses.kfac import kfac_operators
from curvlab.analyses.settings import Settings
from curvlab.capture.survey import survey
from curvlab.likelihoods import likelihood
from curvlab.operators.spectrum import spectrum
from curvlab.statistics.collect import collect
from curvlab.statistics.plan import Plan


def measure(rounds: int) -> None:
    """Spectra from the factors of one batch of 512, with rows kept while they are fewer than the features."""
    model, x, y = mlp()
    found, chosen = survey(model, x[:2]), likelihood("categorical")

    def factors(keep_rows: bool, dtype: torch.dtype) -> list[object]:
        plan = Plan(output_gradients=True, keep_rows=keep_rows, dtype=dtype)
        (part,), _ = collect(model, found, [(x, y)], chosen, plan, torch.Generator().manual_seed(0))
        layers = [(block.layer, of_layer(block, part)) for block in found.blocks.values()]
        return [op for layer, known in layers for op in kfac_operators(layer, Settings(), known) or ()]

    ours, dense = factors(True, torch.float64), factors(False, torch.float32)
    matrices = [op.matrix.float() for op in factors(False, torch.float32)]
    show(
        "Spectra of A and G of the MLP (batch 512), an inner function of analyze",
        alternate(
            {
                "one gradient": gradient(model, x, y),
                "curvlab: float64, Gram matrix while N·T < d": lambda: [spectrum(op, 512) for op in ours],
                "curvlab: float64, dense factors": lambda: [spectrum(op, 512) for op in dense],
                "eigh as in curvlinops, float32": lambda: [torch.linalg.eigh(m) for m in matrices],
                "eigh as in curvlinops, float64": lambda: [torch.linalg.eigh(m.double()) for m in matrices],
            },
            rounds,
        ),
        {},
    )

"""All spectra of the K-FAC factors of the MLP, against curvlinops' eigendecompositions of the same factors.

An inner function is timed here, without the pass that collects the factors: what a user calls is in `profiles`.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.factors import gradient
from benchmarks.networks import mlp
from benchmarks.timing import alternate, show
from curvlab.analyses.averages import Averages
from curvlab.analyses.kfac import kfac_operators
from curvlab.analyses.settings import Settings
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.survey import survey
from curvlab.curvatures.gradient_moments import GradientMoments
from curvlab.curvatures.input_moments import InputMoments
from curvlab.likelihoods import likelihood
from curvlab.likelihoods.fisher import Fisher
from curvlab.operators.spectrum import spectrum


def measure(rounds: int) -> None:
    """Spectra from the factors of one batch of 512, with rows kept while they are fewer than the features."""
    model, x, y = mlp()
    found, chosen = survey(model, x[:2]), likelihood("categorical")

    def factors(keep_rows: bool, dtype: torch.dtype) -> list[Any]:
        recipes = (InputMoments(keep_rows), GradientMoments(keep_rows=keep_rows))
        averages = Averages([(one, one.profiled(found)) for one in recipes], halves=False)
        recorder = ForwardBackward(model, "the benchmark", found=found, stream=True, dtype=dtype)
        recorder.batch(x, y, Fisher(chosen, "mc", 1, torch.Generator().manual_seed(0)), averages)
        averages.end(len(x))
        recorder.close()
        layers = [(block.layer, averages.layer(name)[0]) for name, block in found.blocks.items()]
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

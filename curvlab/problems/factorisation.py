"""½‖W₂W₁x − Ax‖² with κ(A) = 10⁵ (LNB, section 5.1, after Recht 2017): matrix factorisation as a two-layer linear
network.

Weights begin as the notebook's standard normal draws over √fan_in: at ten times its size the plain draws start
at a loss of 185,000, and Adam had not brought it below 0.4 after 1,000 steps at any rate of a grid. Targets are rounded
to float32, so that in float64 no map has a loss below 10⁻¹⁵ or so.

Settings come from grids (factors of 3) of 200 steps with one seed, AdamW's and Muon's with two; the rates of all but
RMSprop, TNT, Shampoo, AdamW and Muon are the largest that were tried. Exact blocks fit into memory, but a step takes
seconds: they were not tuned.
"""

from __future__ import annotations

from functools import partial

from curvlab.problems.initialisation import fan_in_normal
from curvlab.problems.metrics import squared_error
from curvlab.problems.networks import mlp
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

register(
    Problem(
        name="factorisation",
        description="a linear map of condition number 1e5 as two layers, 60-60-100, no bias, full batch",
        source="LNB, section 5.1",
        model=partial(mlp, (60, 60, 100), linear=1, bias=False),
        data="linear-map",
        input_shape=(60,),
        targets="values",
        likelihood="gaussian",
        metrics={"squared_error": squared_error},
        test_size=200,
        batch_size=1000,
        epochs=1000,
        settings={
            "sgd": {"lr": 0.1},
            "adam": {"lr": 0.03, "eps": 1e-8},
            "adamw": {"lr": 0.1},
            "rmsprop": {"lr": 3e-4, "eps": 1e-8},
            "muon": {"lr": 0.01},
            "lnb": {"lr": 0.01, "ridge": 0.0, "minimum_norm": 1.0, "online": False},
            "kbfgs-20": {"lr": 1.0, "damping": 0.3},
            "kbfgsl-20": {"lr": 1.0, "damping": 0.3},
            "kbfgs": {"lr": 0.3, "damping": 1.0},
            "kbfgsl": {"lr": 0.3, "damping": 1.0},
            "kfac": {"lr": 0.1, "damping": 0.01},
            "ekfac": {"lr": 0.1, "damping": 0.01},
            "tnt": {"lr": 0.003, "damping": 0.1},
            "shampoo": {"lr": 0.01, "damping": 0.001},
            "fop": {"lr": 0.1},
            "s-hd": {"lr": 0.1},
            "pp-hd": {"lr": 0.1},
        },
        initialise=fan_in_normal,
    )
)

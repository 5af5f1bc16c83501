"""The CURVES and FACES autoencoders of Ren 2022, Tables 2.4 and 3.6 (MNIST's is in `curvlab.problems.mnist`).

Settings are those of Table 3.5, at batches of 1000 and without the regularisation of chapter 2; chapter 2's methods
average the gradient with the factor 1 − β = 0.1, so that they have ten times that table's rates. Table 4.3 has those of
TNT and Shampoo, Table 2.5 RMSprop's. The paper's CURVES is a file of 20,000 + 10,000 images; here curves are drawn.
"""

from __future__ import annotations

from functools import partial

from curvlab.problems.metrics import reconstruction_error, squared_error
from curvlab.problems.networks import autoencoder
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

register(
    Problem(
        name="curves-autoencoder",
        description="drawn curves, 784-400-200-100-50-25-6 and back, ReLU, linear code",
        source="Ren 2022, Tables 2.4, 3.5 and 3.6",
        model=partial(autoencoder, (784, 400, 200, 100, 50, 25, 6)),
        data="curves",
        input_shape=(784,),
        targets="inputs",
        likelihood="bernoulli",
        metrics={"reconstruction_error": reconstruction_error},
        test_size=2000,
        batch_size=1000,
        epochs=60,
        settings={
            "sgd": {"lr": 0.003},
            "adam": {"lr": 1e-3, "eps": 1e-3},
            "rmsprop": {"lr": 1e-3, "eps": 1e-3},
            "kfac": {"lr": 0.3, "damping": 30.0},
            "tnt": {"lr": 3e-6, "damping": 0.01},
            "shampoo": {"lr": 3e-4, "damping": 3e-4},
            "kbfgs-20": {"lr": 0.1, "damping": 0.03},
            "kbfgsl-20": {"lr": 0.03, "damping": 0.03},
            "kbfgs": {"lr": 0.03, "damping": 0.3},
            "kbfgsl": {"lr": 0.1, "damping": 3.0},
        },
    )
)

register(
    Problem(
        name="faces-autoencoder",
        description="FACES, 625-2000-1000-500-30-500-1000-2000-625, ReLU, linear code",
        source="Ren 2022, Tables 2.4, 3.5 and 3.6",
        model=partial(autoencoder, (625, 2000, 1000, 500, 30)),
        data="faces.npz",
        input_shape=(625,),
        targets="inputs",
        likelihood="gaussian",
        metrics={"squared_error": squared_error},
        test_size=62_100,
        batch_size=1000,
        epochs=60,
        settings={
            "sgd": {"lr": 0.001},
            "adam": {"lr": 1e-4, "eps": 1e-4},
            "rmsprop": {"lr": 1e-4, "eps": 1e-4},
            "kfac": {"lr": 0.01, "damping": 0.1},
            "tnt": {"lr": 1e-6, "damping": 0.003},
            "shampoo": {"lr": 3e-4, "damping": 3e-4},
            "kbfgs-20": {"lr": 0.1, "damping": 0.3},
            "kbfgsl-20": {"lr": 0.1, "damping": 0.3},
            "kbfgs": {"lr": 0.03, "damping": 1.0},
            "kbfgsl": {"lr": 0.03, "damping": 1.0},
        },
        obtain=(
            "write the images of newfaces_rot_single.mat (Olivetti faces, augmented; "
            "www.cs.toronto.edu/~jmartens) as a numpy archive of x (165600, 625), float32"
        ),
    )
)

"""y = A x with κ(A) = 10⁵: the data of a two-layer linear network that gradient descent is slow on (LNB, section
5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from curvlab.data.dataset import Dataset
from curvlab.data.registry import entry

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES, INPUTS, OUTPUTS = 1200, 60, 100
CONDITION = 1e5
SEED = 0


class LinearMap(NamedTuple):
    """The map and examples of it, float64: matrix A (100, 60), x (n, 60) standard normal, y = x Aᵀ (n, 100)."""

    matrix: Tensor
    x: Tensor
    y: Tensor


def linear_map(seed: int = SEED) -> LinearMap:
    """A = U diag(s) Vᵀ with s₁ … s₆₀ falling geometrically from 1 to 10⁻⁵, U and V from QR of Gaussian matrices.

    The notebook that lnb follows (Recht 2017) scales the rows of a 10 × 10 matrix instead, which at 100 × 60 gives no
    condition number of 10⁵; lnb does not say how its matrix was made.

    Args:
        seed: of all numbers; the dataset `linear-map` has 0.
    """
    import torch

    random = torch.Generator().manual_seed(seed)
    # The device is named so that torch.device("meta") and the like around a call change nothing.
    u, v = (
        torch.linalg.qr(torch.randn(rows, INPUTS, generator=random, dtype=torch.float64, device="cpu")).Q
        for rows in (OUTPUTS, INPUTS)
    )
    s = CONDITION ** -torch.linspace(0, 1, INPUTS, dtype=torch.float64, device="cpu")
    matrix = (u * s) @ v.mT
    x = torch.randn(EXAMPLES, INPUTS, generator=random, dtype=torch.float64, device="cpu")
    # As the dataset stores it, so that y belongs to the x that is trained on.
    x = x.float().double()
    return LinearMap(matrix, x, x @ matrix.mT)


def read_linear_map() -> Dataset:
    """The dataset `linear-map`, float32: rounding y leaves ½‖Ax − y‖² near 10⁻¹⁵, which no network can be below."""
    made = linear_map()
    source = f"linear-map ({entry('linear-map').source}, seed {SEED})"
    return Dataset("linear-map", made.x.float(), made.y.float(), source, synthetic=True, task="regression")

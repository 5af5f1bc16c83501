"""Products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.table import operator


@operator("MatMul")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a b, broadcast over leading axes."""
    return torch.matmul(a, b)


@operator("Gemm", since=7)
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """alpha · a b + beta · c, either operand transposed if asked."""
    product = torch.matmul(a.mT if transA else a, b.mT if transB else b)
    product = product if alpha == 1 else (alpha * product).to(product.dtype)
    return product if c is None else product + (c if beta == 1 else (beta * c).to(c.dtype))


@operator("Gemm", before=7)
def gemm_with_broadcast(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """An attribute allows c to be broadcast, which it is anyway."""
    return gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@operator("Einsum")
def einsum(*x: Tensor, equation: str) -> Tensor:
    """Σ over the letters that the right side leaves out."""
    return torch.einsum(equation, *x)


@operator("Det")
def determinant(x: Tensor) -> Tensor:
    """det x."""
    det: Tensor = torch.linalg.det(x)
    return det

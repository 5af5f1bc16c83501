"""Shapes in the types: `Float[Tensor, "n s i"]`. Tests check them at run time; without jaxtyping they are plain
tensors.

`Inexact` is real or complex.

Letters used everywhere: g groups, n examples, s positions, i inputs (with the 1 of the bias), o outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Inexact, Int, Num
else:
    try:
        from jaxtyping import Bool, Float, Inexact, Int, Num
    except ModuleNotFoundError:

        class _Unchecked:
            """`Float[Tensor, "n i"]` is `Tensor` where jaxtyping, a tool of the tests, is not installed."""

            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Inexact = Int = Num = _Unchecked

__all__ = ["Bool", "Float", "Inexact", "Int", "Num"]

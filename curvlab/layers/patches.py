"""A convolution is s[n,t] = W ā[n,t] with ā the patch of the padded image under the kernel at output position t.

Features are in the order of `weight.reshape(out, -1)`: feature c·K + u is channel c at kernel offset u, with K offsets.
A transposed convolution is the same map: its kernel, flipped, moves by ones over the image with pixels `stride` apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.errors import UnsupportedLayer
from curvlab.shapes import Float

__all__ = ["Geometry", "patches", "transposed_patches", "windows"]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConvolution = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


@dataclass(frozen=True)
class Geometry:
    """y = step·t + dilation·u − padding_low: the pixel under kernel offset u at output position t, on every axis.

    Attributes:
        kernel: extent of the kernel, one entry per spatial axis (one to three), like all the tuples here.
        stride: distance of output positions; for a transposed convolution, the distance of its input pixels.
        dilation: distance of kernel offsets.
        padding: (low, high) pixels added at the sides of each axis; a negative number crops.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        groups: number of independent maps, each on its own block of channels.
        transposed: the image is spread by `stride`, the kernel is flipped and moves by ones.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    padding_mode: str = "zeros"
    groups: int = 1
    transposed: bool = False

    @classmethod
    def of(cls, module: nn.Module) -> Geometry:
        """The geometry of an nn.Conv1d/2d/3d or nn.ConvTranspose1d/2d/3d.

        A transposed convolution called with `output_size` pads more than its module says: replace `padding` then.

        Raises:
            UnsupportedLayer: for any other module.
        """
        if not isinstance(module, Convolution | TransposedConvolution):
            raise UnsupportedLayer(f"{type(module).__name__} is not a convolution", "its input has no patches")
        reaches = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        transposed = isinstance(module, TransposedConvolution)
        padding: list[tuple[int, int]]
        if module.padding == "same":
            padding = [
                (reach // 2, reach - reach // 2) for reach in reaches
            ]  # torch puts the odd pixel at the high end
        elif module.padding == "valid":
            padding = [(0, 0) for _ in reaches]
        else:
            padding = [(int(p), int(p)) for p in module.padding]
        if transposed:
            sides = zip(reaches, padding, module.output_padding, strict=True)
            padding = [(reach - low, reach - high + more) for reach, (low, high), more in sides]
        sizes = tuple(module.kernel_size), tuple(module.stride), tuple(module.dilation)
        return cls(*sizes, tuple(padding), module.padding_mode, module.groups, transposed)

    @property
    def step(self) -> tuple[int, ...]:
        """Pixels from one output position to the next."""
        return (1,) * len(self.kernel) if self.transposed else self.stride

    @property
    def spacing(self) -> tuple[int, ...]:
        """Pixels from one input value to the next; in a transposed convolution zeros lie between them."""
        return self.stride if self.transposed else (1,) * len(self.kernel)

    def output_shape(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Numbers of output positions for an input of this spatial shape.

        Raises:
            UnsupportedLayer: when the padded image is smaller than the kernel.
        """
        axes = zip(spatial, self.spacing, self.padding, self.dilation, self.kernel, strict=True)
        room = [(size - 1) * m + low + high - d * (k - 1) for size, m, (low, high), d, k in axes]
        if min(room) < 0:
            why = f"a kernel of {self.kernel} with dilation {self.dilation} and padding {self.padding} does not fit"
            raise UnsupportedLayer(f"the input is {tuple(spatial)} pixels", why)
        return tuple(free // step + 1 for free, step in zip(room, self.step, strict=True))

    def pad(self, x: Float[Tensor, "n c *spatial"]) -> Float[Tensor, "n c *padded"]:
        """The image the kernel moves over: spread if transposed, padded, cropped where padding is negative."""
        if max(self.spacing) > 1:
            sizes = [(size - 1) * m + 1 for size, m in zip(x.shape[2:], self.spacing, strict=True)]
            spread = x.new_zeros(*x.shape[:2], *sizes)
            spread[(slice(None), slice(None), *(slice(None, None, m) for m in self.spacing))] = x
            x = spread
        sides = [side for pair in reversed(self.padding) for side in pair]
        return F.pad(x, sides, "constant" if self.padding_mode == "zeros" else self.padding_mode) if any(sides) else x


def windows(
    x: Float[Tensor, "n c *padded"], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Float[Tensor, "n c *window"]:
    """windows(x)[n, c, *t, *u] = x[n, c, stride·t + dilation·u]: a view `[n, c, *out, *kernel]` of the padded x."""
    axes = list(zip(x.shape[2:], x.stride()[2:], kernel, stride, dilation, strict=True))
    out = [(size - d * (k - 1) - 1) // s + 1 for size, _, k, s, d in axes]
    strides = [step * s for _, step, _, s, _ in axes] + [step * d for _, step, _, _, d in axes]
    return x.as_strided((*x.shape[:2], *out, *kernel), (*x.stride()[:2], *strides))


@torch.no_grad()
def patches(x: Float[Tensor, "n c *spatial"], geometry: Geometry) -> Float[Tensor, "g n s d"]:
    """ā[g,n,t,c·K + u] = pad(x)[n, c, step·t + dilation·u]: the input patches, one row per output position.

    Args:
        x: batched input of the convolution, without the geometry's padding.
        geometry: of the convolution.

    Returns:
        Detached patches with a leading axis of groups, of size one if there are none. In memory features come before
        rows: runs of neighbouring pixels are copied whole, four times faster than row after row, and BLAS reads both.
    """
    dims, positions = len(geometry.kernel), prod(geometry.output_shape(x.shape[2:]))
    view = windows(geometry.pad(x), geometry.kernel, geometry.step, geometry.dilation)
    taps = view.permute(1, *range(2 + dims, 2 + 2 * dims), 0, *range(2, 2 + dims))
    if geometry.transposed:
        taps = taps.flip(tuple(range(1, 1 + dims)))
    width = x.shape[1] // geometry.groups * prod(geometry.kernel)
    return taps.reshape(geometry.groups, width, x.shape[0], positions).permute(0, 2, 3, 1)


def transposed_patches(x: Float[Tensor, "n c *spatial"], module: TransposedConvolution) -> Float[Tensor, "g n s d"]:
    """conv_transpose(x)[g,n,t] = W_g ā[g,n,t], with W_g the weight (in, out/g, *k) as (out/g, in/g·K), not flipped.

    The flip is in the features, so weight matrices and their gradients are plain rearrangements of the parameter.
    """
    return patches(x, Geometry.of(module))

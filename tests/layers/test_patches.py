"""Patches and their moments against torch's convolutions: a kernel that is the identity matrix outputs its patches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.errors import UnsupportedLayer
from curvlab.layers.patch_moments import fastest, patch_products, patch_second_moment, patch_sum
from curvlab.layers.patches import Geometry, patches, transposed_patches, windows
from curvlab.layers.row_products import has_row_products, row_products
from curvlab.layers.shifted_products import shifted_products
from curvlab.linalg.gram import mirrored

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

# torch's own remark on even kernels with 'same' padding, from the oracle.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


@dataclass
class Case:
    """A convolution's arguments and the shape of its input."""

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    transposed: bool = False

    def __str__(self) -> str:
        name = "transposed" if self.transposed else "convolution"
        return f"{name}{self.shape}k{self.kernel}{self.options}".replace(" ", "")

    @property
    def groups(self) -> int:
        return int(self.options.get("groups", 1))

    @property
    def width(self) -> int:
        return self.shape[1] // self.groups * int(torch.tensor(self.kernel).prod())

    def module(self, outputs: int) -> nn.Module:
        """The convolution, with so many outputs per group."""
        kind = (TRANSPOSED if self.transposed else CONVOLUTIONS)[len(self.kernel)]
        channels = outputs * self.groups
        return kind(self.shape[1], channels, self.kernel, bias=False, dtype=torch.float64, **self.options)

    def weight(self, rows: Tensor) -> Tensor:
        """Matrices [g, o, d] in the layout of the module's weight."""
        groups, outputs, _ = rows.shape
        if self.transposed:
            split = rows.reshape(groups, outputs, -1, *self.kernel).transpose(1, 2)
            return split.reshape(self.shape[1], outputs, *self.kernel)
        return rows.reshape(groups * outputs, -1, *self.kernel)

    def apply(self, rows: Tensor, x: Tensor) -> Tensor:
        """[g, n, s, o]: the module's outputs with these matrices as weight."""
        module = self.module(rows.shape[1]).requires_grad_(False)
        module.weight.copy_(self.weight(rows))
        y = module(x)
        return y.reshape(x.shape[0], self.groups, rows.shape[1], -1).permute(1, 0, 3, 2)

    def rows(self, x: Tensor) -> Tensor:
        """The patches [g, n, s, d], from torch's convolution with the identity matrix as kernel."""
        return self.apply(torch.eye(self.width, dtype=x.dtype).expand(self.groups, -1, -1), x)


def check(case: Case, x: Tensor | None = None) -> None:
    """Patches, their sum, their number and all roads to the second moment equal those of torch's convolution."""
    x = torch.randn(case.shape, dtype=torch.float64) if x is None else x
    geometry = Geometry.of(case.module(1))
    expected = case.rows(x)
    torch.testing.assert_close(patches(x, geometry), expected, rtol=0, atol=0)

    flat = expected.flatten(1, 2)
    second = flat.mT @ flat
    by_rows = [row_products] if has_row_products(geometry, x.shape[2]) else []
    for road in (shifted_products, patch_products, *by_rows):
        product = mirrored(road(x, geometry, torch.float64))
        torch.testing.assert_close(product, second, rtol=1e-12, atol=1e-12)
        assert torch.equal(product, product.mT)
    total, second_moment, count = patch_second_moment(x, geometry, torch.float64)
    torch.testing.assert_close(total, flat.sum(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mirrored(second_moment), second, rtol=1e-12, atol=1e-12)
    assert count == flat.shape[1]


TABLE = [
    *(Case((3, 2, 9), (k,), {"padding": p}) for k in (1, 2, 3, 5, 7) for p in (0, 1, "same")),
    *(Case((3, 2, 9), (k,), {"stride": s, "dilation": d}) for k in (1, 2, 3) for s in (2, 3) for d in (1, 2)),
    *(Case((2, 3, 7, 8), (k, k), {"padding": p}) for k in (1, 2, 3, 5, 7) for p in (0, 1, 2, "same")),
    *(Case((2, 2, 8, 7), (k, k), {"stride": s, "padding": k // 2}) for k in (1, 2, 3, 5) for s in (2, 3)),
    *(Case((2, 2, 9, 8), (k, k), {"stride": s, "padding": 2, "dilation": 2}) for k in (2, 3) for s in (1, 2)),
    *(
        Case((2, 2, 6, 5), (3, 2), {"padding": p, "padding_mode": mode})
        for p in (1, (2, 1), "same")
        for mode in ("zeros", "reflect", "replicate", "circular")
    ),
    *(Case((3, 6, 5, 4), (3, 3), {"padding": 1, "stride": s, "groups": g}) for g in (1, 2, 3, 6) for s in (1, 2)),
    Case((2, 2, 5, 6), (2, 5), {"padding": (0, 2), "stride": (1, 2), "dilation": (2, 1)}),
    Case((2, 3, 1, 1), (3, 3), {"padding": 1}),
    Case((2, 3, 2, 2), (3, 3), {"padding": 1}),
    Case((2, 3, 2, 2), (3, 3), {"padding": 4}),
    Case((2, 3, 1, 5), (1, 3), {"padding": "same", "dilation": 2}),
    Case((1, 1, 40), (16,), {"padding": 8}),
    Case((1, 150, 3), (2,)),  # more channels than rows of the result that are written together
    Case((1, 7, 6, 5), (3, 3), {"padding": 1}),  # a row of pixels has fewer rows than channels
    Case((2, 2, 4, 5, 3), (3, 3, 3), {"padding": 1}),
    Case((2, 4, 5, 4, 5), (1, 2, 3), {"stride": (1, 2, 2), "groups": 2, "padding": (0, 1, 1)}),
]
TRANSPOSED_TABLE = [
    *(Case((2, 2, 5), (k,), {"stride": s, "padding": p}, True) for k in (2, 3, 4) for s in (1, 2, 3) for p in (0, 1)),
    *(Case((2, 4, 3, 4), (4, 4), {"stride": 2, "padding": 1, "groups": g}, True) for g in (1, 2, 4)),
    Case((2, 2, 4, 3), (3, 3), {"stride": 2, "padding": 1, "output_padding": 1}, True),
    Case((2, 2, 4, 3), (2, 3), {"stride": (3, 1), "dilation": (1, 2), "output_padding": (2, 1)}, True),
    Case((2, 2, 5, 5), (2, 2), {"stride": 2, "padding": 2}, True),  # more than the kernel's reach: the image is cropped
    Case((1, 2, 2, 3, 2), (2, 2, 2), {"stride": 2}, True),
]


@pytest.mark.parametrize("case", TABLE + TRANSPOSED_TABLE, ids=str)
def test_moments_of_torchs_convolutions(case: Case) -> None:
    check(case)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Convolutions of any geometry that fits, on small images."""
    dims = draw(st.integers(1, 3))

    def axis(low: int, high: int) -> st.SearchStrategy[tuple[int, ...]]:
        return st.tuples(*[st.integers(low, high)] * dims)

    kernel, groups, transposed = (
        draw(axis(1, 3 if dims > 1 else 6)),
        draw(st.sampled_from((1, 2, 3))),
        draw(st.booleans()),
    )
    shape = (draw(st.integers(1, 3)), groups * draw(st.integers(1, 3)), *draw(axis(1, 6 if dims < 3 else 4)))
    options = {"dilation": draw(axis(1, 3)), "groups": groups}
    if transposed:
        options |= {"stride": draw(axis(1, 3)), "padding": draw(axis(0, 2)), "output_padding": draw(axis(0, 2))}
    else:
        options |= {"padding_mode": draw(st.sampled_from(("zeros", "reflect", "replicate", "circular")))}
        options |= draw(
            st.one_of(
                st.fixed_dictionaries({"stride": axis(1, 3), "padding": axis(0, 3)}),
                st.just({"padding": "same"}),
            )
        )
    case = Case(shape, kernel, options, transposed)
    try:  # what torch itself refuses: images smaller than the kernel, reflections longer than the image
        outputs = case.module(1)(torch.zeros(shape, dtype=torch.float64))
    except (RuntimeError, ValueError):
        assume(False)
    assume(outputs.numel() > 0)
    return case


@given(cases())
@settings(max_examples=80, deadline=None)
def test_moments_of_any_geometry(case: Case) -> None:
    check(case)


@given(cases())
@settings(max_examples=30, deadline=None)
def test_weights_times_patches_are_the_outputs(case: Case) -> None:
    x, weight = (
        torch.randn(case.shape, dtype=torch.float64),
        torch.randn(case.groups, 2, case.width, dtype=torch.float64),
    )
    geometry = Geometry.of(case.module(2))
    outputs = patches(x, geometry) @ weight.mT.unsqueeze(1)
    torch.testing.assert_close(outputs, case.apply(weight, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", [((0, 1), (2, 0)), ((3, 0), (0, 0)), ((-1, 2), (1, -2))])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_may_differ_at_the_two_sides_and_crop(padding: tuple[tuple[int, int], ...], stride: int) -> None:
    x = torch.randn(3, 2, 6, 5, dtype=torch.float64)
    geometry = Geometry((3, 2), (stride, stride), (1, 1), padding)
    sides = [side for pair in reversed(padding) for side in pair]
    rows = Case(F.pad(x, sides).shape, (3, 2), {"stride": stride}).rows(F.pad(x, sides))
    torch.testing.assert_close(patches(x, geometry), rows, rtol=0, atol=0)
    flat = rows.flatten(1, 2)
    for road in (shifted_products, patch_products):
        torch.testing.assert_close(mirrored(road(x, geometry, torch.float64)), flat.mT @ flat, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "transposed"])
def test_strided_inputs(layout: str) -> None:
    x = {
        "channels_last": torch.randn(3, 4, 5, 6, dtype=torch.float64).contiguous(memory_format=torch.channels_last),
        "sliced": torch.randn(6, 8, 9, 6, dtype=torch.float64)[::2, 1::2, 2:7],
        "transposed": torch.randn(3, 4, 6, 5, dtype=torch.float64).mT,
    }[layout]
    for options in ({"padding": 1}, {"stride": 2}, {"groups": 2}):
        check(Case((3, 4, 5, 6), (3, 3), options), x)


def test_transposed_patches_take_the_module() -> None:
    case = Case((2, 4, 3, 5), (3, 2), {"stride": 2, "groups": 2, "output_padding": 1}, transposed=True)
    x = torch.randn(case.shape, dtype=torch.float64)
    torch.testing.assert_close(transposed_patches(x, case.module(1)), case.rows(x), rtol=0, atol=0)  # type: ignore[arg-type]


def test_windows_are_a_view_that_agrees_with_unfold() -> None:
    x = torch.randn(2, 3, 7, 8)[:, :, 1:]
    view = windows(x, (3, 2), (2, 3), (1, 2))
    assert view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    unfolded = F.unfold(x, (3, 2), dilation=(1, 2), stride=(2, 3))
    torch.testing.assert_close(view.permute(0, 1, 4, 5, 2, 3).reshape(unfolded.shape), unfolded, rtol=0, atol=0)


def test_patches_need_no_graph() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    geometry = Geometry.of(nn.Conv2d(3, 1, 3))
    assert not patches(x, geometry).requires_grad
    assert not any(t.requires_grad for t in patch_second_moment(x, geometry)[:2])


@pytest.mark.parametrize("shape", [(64, 24, 12, 12), (2, 24, 40, 40)])
def test_float32_is_as_good_as_the_plain_product(shape: tuple[int, ...]) -> None:
    x, geometry = torch.randn(shape) + 1, Geometry.of(nn.Conv2d(24, 1, 3, padding=1))
    exact = mirrored(patch_products(x, geometry, torch.float64))
    rows = patches(x, geometry).flatten(1, 2)
    plain = (rows.mT @ rows - exact).abs().max()
    assert (mirrored(shifted_products(x, geometry, torch.float32)) - exact).abs().max() <= 2 * plain


def test_half_precision_inputs_are_converted_before_they_are_multiplied() -> None:
    x, geometry = torch.randn(4, 3, 5, 5).to(torch.bfloat16), Geometry.of(nn.Conv2d(3, 1, 3, padding=1))
    rows = patches(x.double(), geometry).flatten(1, 2)
    for road in (shifted_products, patch_products):
        torch.testing.assert_close(mirrored(road(x, geometry, torch.float64)), rows.mT @ rows, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(patch_sum(x, geometry, torch.float64), rows.sum(1), rtol=1e-12, atol=1e-12)


def test_patches_of_many_examples_are_formed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, geometry = torch.randn(7, 2, 4, 4, dtype=torch.float64), Geometry.of(nn.Conv2d(2, 1, 3, padding=1))
    whole = patch_products(x, geometry, torch.float64).triu()
    monkeypatch.setattr("curvlab.layers.patch_moments.ENTRIES", 1)
    formed = []

    def counted(x: Tensor, geometry: Geometry) -> Tensor:
        formed.append(len(x))
        return patches(x, geometry)

    monkeypatch.setattr("curvlab.layers.patch_moments.patches", counted)
    torch.testing.assert_close(patch_products(x, geometry, torch.float64).triu(), whole, rtol=1e-12, atol=1e-12)
    assert len(formed) > 1
    assert sum(formed) == 7


@pytest.mark.parametrize("width", [1, 3, 4])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("height", [2, 3, 5])
def test_rows_of_every_width(width: int, padding: int, dilation: int, height: int) -> None:
    """Kernels three high, padded by one, of any width, padding and dilation along it."""
    case = Case((3, 2, height, 9), (3, width), {"padding": (1, padding), "dilation": (1, dilation)})
    assert has_row_products(Geometry.of(case.module(1)), height)
    check(case)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "groups", "shifts"),
    [
        ((64, 64, 32, 32), 3, 1, 1, True),
        ((64, 512, 4, 4), 3, 1, 1, True),
        ((64, 3, 32, 32), 3, 1, 1, False),  # products of 3×3 are no work for a matrix product
        ((64, 256, 16, 16), 1, 1, 1, False),  # half of one product is less than one product
        ((64, 64, 32, 32), 3, 1, 64, False),
        ((1, 16, 8, 8), 3, 1, 1, False),
        ((8, 1, 1024, 1), 512, 4, 1, False),  # too many pairs of offsets to list
    ],
)
def test_the_cheaper_road_is_taken(shape: tuple[int, ...], kernel: int, stride: int, groups: int, shifts: bool) -> None:
    kernels = tuple(min(kernel, size) for size in shape[2:])
    geometry = Geometry(kernels, (stride, stride), (1, 1), tuple((k // 2, k // 2) for k in kernels), groups=groups)
    assert (fastest(shape, geometry) is shifted_products) is shifts


def test_what_has_no_patches_says_so() -> None:
    with pytest.raises(UnsupportedLayer, match="Linear is not a convolution"):
        Geometry.of(nn.Linear(2, 2))
    with pytest.raises(UnsupportedLayer, match=r"the input is \(2, 4\) pixels: a kernel of \(3, 3\)"):
        patches(torch.zeros(1, 1, 2, 4), Geometry.of(nn.Conv2d(1, 1, 3)))

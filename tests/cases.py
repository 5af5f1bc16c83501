"""Models, data and likelihoods as data: every statistic is checked on all of them. Sizes are small and unequal, so
that axes cannot be mixed up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A model with one batch; `make` is called under float64."""

    name: str
    make: Callable[[], nn.Module]
    x: tuple[int, ...]
    outputs: tuple[int, ...]
    likelihood: str = "categorical"
    vocabulary: int | None = None

    def build(self) -> tuple[nn.Module, Tensor, Tensor]:
        """Model, x, y on the default device: the same at each call and on every device."""
        device = torch.get_default_device()
        with torch.device("cpu"):
            model, x, y = self._made()
        return model.to(device), x.to(device), y.to(device)

    def _made(self) -> tuple[nn.Module, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(0)
        model = self.make()
        if self.vocabulary:
            x = torch.randint(0, self.vocabulary, self.x, generator=generator)
        else:
            x = torch.randn(self.x, generator=generator, dtype=torch.get_default_dtype())
        n = self.x[0]
        if self.likelihood == "categorical":
            y = torch.randint(0, self.outputs[0], (n, *self.outputs[1:]), generator=generator)
        elif self.likelihood == "bernoulli":
            y = torch.randint(0, 2, (n, *self.outputs), generator=generator).to(torch.get_default_dtype())
        else:
            y = torch.randn((n, *self.outputs), generator=generator, dtype=torch.get_default_dtype())
        return model, x, y


class Mean(nn.Module):
    """Mean over one axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axis)


class Twice(nn.Module):
    """A module called twice, and two modules that share all their parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = (
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 4, bias=False),
            nn.Linear(4, 3),
        )
        self.b.weight, self.b.bias = self.a.weight, self.a.bias

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.a(x))
        return self.out(torch.tanh(self.c(torch.sin(self.c(torch.tanh(self.b(x)))))))


class TiedEmbedding(nn.Module):
    """The output layer is the embedding table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(5, 3), nn.Linear(3, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.mix(self.embed(x))).mean(1))


class ByHand(nn.Module):
    """Parameters without a module: added, multiplied, expanded, subtracted, and used as a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 3)), nn.Parameter(torch.randn(1, 4, 3))
        self.scale, self.shift = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(()))
        self.weight, self.right, self.minus = (nn.Parameter(torch.randn(s)) for s in ((2, 3), (2, 4), (4,)))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.place
        x = torch.tanh(x * self.scale) + self.shift
        return (F.linear(x.mean(1), self.weight) @ self.right - self.minus) * self.shift


class InPlace(nn.Module):
    """In-place activations directly behind the layers, and a residual added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x), inplace=True)
        y = self.b(x)
        y += x
        return self.c(y.sigmoid_())


class Folded(nn.Module):
    """Positions folded into the batch axis, and a part of the network that runs sequence-first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        x = torch.tanh(self.a(x.reshape(n * t, d))).reshape(n, t, 4)
        return self.c(torch.tanh(self.b(x.transpose(0, 1))).mean(0))


class ClassesFirst(nn.Module):
    """A classifier of every position, its outputs laid out as cross entropy takes them: (n, classes, positions)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).movedim(-1, 1)


class Pooled(nn.Module):
    """Convolution, kinks and maxima twice over, then a classifier: the classic network of digits in small."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 2), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.one, self.two):
            x = F.max_pool2d(F.relu(layer(x)), 2)
        return self.head(x.flatten(1))


def _conv(*args: object, dims: int = 2, head: int, **kwargs: object) -> Callable[[], nn.Module]:
    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    return lambda: nn.Sequential(kinds[dims](*args, **kwargs), nn.Tanh(), nn.Flatten(), nn.Linear(head, 3))  # type: ignore[arg-type]


def _deconv(*args: object, dims: int = 2, head: int, **kwargs: object) -> Callable[[], nn.Module]:
    kinds = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}
    return lambda: nn.Sequential(kinds[dims](*args, **kwargs), nn.Tanh(), nn.Flatten(), nn.Linear(head, 3))  # type: ignore[arg-type]


CASES = [
    Case("linear", lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (5, 4), (2,)),
    Case(
        "no-bias",
        lambda: nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh(), nn.Linear(3, 2, bias=False)),
        (5, 4),
        (2,),
    ),
    Case("gaussian", lambda: nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)), (5, 4), (2,), "gaussian"),
    Case("bernoulli", lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (5, 4), (2,), "bernoulli"),
    Case(
        "positions",
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), Mean(1), Mean(1), nn.Linear(3, 2)),
        (5, 2, 3, 4),
        (2,),
    ),
    Case(
        "position-outputs", lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Conv1d(3, 2, 1)), (4, 2, 4), (2, 3)
    ),
    Case("conv2d", _conv(2, 4, 3, padding=1, head=48), (3, 2, 3, 4), (3,)),
    Case("conv2d-stride", _conv(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), bias=False, head=18), (3, 2, 4, 4), (3,)),
    Case("conv2d-dilated", _conv(2, 3, 2, dilation=2, padding=1, head=48), (3, 2, 4, 4), (3,)),
    Case("conv2d-groups", _conv(4, 6, 3, groups=2, padding="same", head=72), (3, 4, 3, 4), (3,)),
    Case("conv2d-depthwise", _conv(3, 6, 2, groups=3, head=36), (3, 3, 3, 4), (3,)),
    Case("conv2d-circular", _conv(2, 3, 3, padding=1, padding_mode="circular", head=36), (3, 2, 3, 4), (3,)),
    Case("conv1d-reflect", _conv(2, 3, 3, padding=2, padding_mode="reflect", dims=1, head=21), (4, 2, 5), (3,)),
    Case("conv3d", _conv(2, 3, 2, padding=1, dims=3, head=108), (3, 2, 2, 2, 3), (3,)),
    Case("deconv2d", _deconv(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2, head=96), (3, 2, 2, 3), (3,)),
    Case("deconv1d", _deconv(3, 3, 2, stride=2, dilation=2, bias=False, dims=1, head=21), (4, 3, 3), (3,)),
    Case(
        "embedding",
        lambda: nn.Sequential(nn.Embedding(6, 3, padding_idx=0), Mean(1), nn.Linear(3, 2)),
        (5, 4),
        (2,),
        vocabulary=6,
    ),
    Case(
        "layer-norm", lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 2)), (5, 4), (2,)
    ),
    Case("rms-norm", lambda: nn.Sequential(nn.Linear(4, 3), nn.RMSNorm(3), nn.Tanh(), nn.Linear(3, 2)), (5, 4), (2,)),
    Case(
        "group-norm",
        lambda: nn.Sequential(nn.Conv1d(2, 4, 1), nn.GroupNorm(2, 4), nn.Tanh(), Mean(2), nn.Linear(4, 2)),
        (4, 2, 3),
        (2,),
    ),
    Case(
        "batch-norm",
        lambda: nn.Sequential(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), nn.Tanh(), Mean(2), nn.Linear(4, 2)).eval(),
        (4, 2, 3),
        (2,),
    ),
    Case(
        "prelu",
        lambda: nn.Sequential(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 3), nn.PReLU(), nn.Linear(3, 2)),
        (5, 4),
        (2,),
    ),
    Case("twice", Twice, (5, 4), (3,)),
    Case("tied", TiedEmbedding, (4, 3), (5,), vocabulary=5),
    Case("by-hand", ByHand, (5, 3, 3), (4,)),
    Case("in-place", InPlace, (5, 4), (3,)),
    Case("folded", Folded, (4, 3, 3), (2,)),
    # What curvlinops' own tests run its operators on.
    Case("relu", lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (7, 4), (2,)),
    Case("one-output", lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), (7, 4), (1,), "bernoulli"),
    Case("position-classes", ClassesFirst, (4, 3, 4), (2, 3)),
    Case(
        "position-labels",
        lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),
        (4, 3, 4),
        (3, 2),
        "bernoulli",
    ),
    Case(
        "position-values",
        lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),
        (4, 3, 4),
        (3, 2),
        "gaussian",
    ),
    Case("max-pool", Pooled, (4, 1, 8, 8), (3,)),
    Case(
        "dropout", lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.ReLU(), nn.Linear(3, 2)).eval(), (5, 4), (2,)
    ),
]
"""Every kind of layer and use of it."""

"""Framing: the size that a picture is brought to: resized, then cut out of the middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    Size = tuple[int, int]

BICUBIC = 3
"""Pillow's number of the filter that it resizes with."""


@dataclass(frozen=True)
class Framing:
    """How a picture of any size gets the one that is wanted.

    Attributes:
        size: (h, w) that it is resized to, or the length of its shorter side; None leaves its size.
        crop: (h, w) of the middle that is kept; None keeps all of it.
        resample: number of Pillow's filter.
    """

    size: Size | int | None
    crop: Size | None = None
    resample: int = BICUBIC

    def resized(self, h: int, w: int) -> Size:
        """(h, w) before the middle is cut out."""
        if self.size is None:
            return h, w
        if not isinstance(self.size, int):
            return self.size
        longer = int(self.size * max(h, w) / min(h, w))
        return (longer, self.size) if h > w else (self.size, longer)

    def shape(self, h: int, w: int) -> Size:
        """(h, w) of the result."""
        return self.crop or self.resized(h, w)

    def fits(self, h: int, w: int) -> bool:
        """Whether what is cut out lies within the picture."""
        here = self.resized(h, w)
        return self.crop is None or (self.crop[0] <= here[0] and self.crop[1] <= here[1])

    def of(self, image: Image) -> Image:
        """The picture in that size."""
        h, w = self.resized(image.height, image.width)
        if (image.height, image.width) != (h, w):
            image = image.resize((w, h), resample=self.resample)
        if self.crop is None:
            return image
        top, left = (h - self.crop[0]) // 2, (w - self.crop[1]) // 2
        return image.crop((left, top, left + self.crop[1], top + self.crop[0]))

    def sentence(self) -> str:
        """What is done, for the user."""
        if self.size is None:
            resized = "left as they are"
        elif isinstance(self.size, int):
            resized = f"resized to a shorter side of {self.size}"
        else:
            resized = f"resized to {self.size[0]}x{self.size[1]}"
        return resized + ("" if self.crop is None else f", {self.crop[0]}x{self.crop[1]} of their middle kept")

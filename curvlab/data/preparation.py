"""Preparation: how text and pictures become inputs of a saved network, by the files of its folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvlab.data.convention import keywords_of
from curvlab.data.dataset import Dataset
from curvlab.data.named_inputs import NamedInputs
from curvlab.data.picture_settings import PictureSettings
from curvlab.data.text import TextReading

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Preparation:
    """What the folders of a network say; read only where data needs it.

    Attributes:
        module: the network.
        folders: its own, then that of its base.
        sequence_length: tokens of a sequence of text, None for as many as `TextReading` takes.
    """

    module: nn.Module
    folders: tuple[Path, ...] = ()
    sequence_length: int | None = None

    @property
    def text(self) -> TextReading:
        """How text becomes tokens."""
        return TextReading(self.module, self.folders, self.sequence_length)

    @property
    def pictures(self) -> PictureSettings | None:
        """How pixels become inputs; None where no folder says.

        Raises:
            DataError: what a folder says is not known here.
        """
        return PictureSettings.of(self.folders)

    def named(self, pictures: Dataset) -> Dataset:
        """Pictures as the input that the network takes by the name pixel_values, if it does; classes by its numbers.

        Classes are told by the names of folders. Where the network's configuration knows all of these names, a class
        has the number that it has there.
        """
        numbers: Any = getattr(getattr(self.module, "config", None), "label2id", None)
        if isinstance(numbers, dict) and pictures.y is not None and set(pictures.classes) <= numbers.keys():
            import torch

            wanted = torch.tensor([int(numbers[name]) for name in pictures.classes])
            note = "classes have the numbers that the model's configuration gives their names"
            pictures = replace(pictures, y=wanted[pictures.y], notes=(*pictures.notes, note))
        key = "pixel_values"
        if key not in keywords_of(self.module):
            return pictures
        return NamedInputs(**{**vars(pictures), "key": key})

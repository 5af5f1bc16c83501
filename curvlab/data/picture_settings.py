"""PictureSettings: how a model folder's preprocessor_config.json says that pictures become its inputs.

x = (c·pixel − mean) / std, of a picture that was resized and whose middle was cut out. Nothing but numbers is taken
from the file; processors that do something else are told by name, and refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvlab.data.budget import within
from curvlab.data.framing import Framing
from curvlab.errors import CheckpointError, DataError
from curvlab.formats.model_config import read_config
from curvlab.quoting import quoted

if TYPE_CHECKING:
    from curvlab.data.dataset import Dataset

FILE = "preprocessor_config.json"
MOST_SIDE = 2**13
# Name of a processor, without its endings -> Pillow's filter, and whether one number is both sides (else the shorter).
KNOWN = {
    "ViT": (2, True),
    "DeiT": (3, True),
    "Siglip": (3, True),
    "Beit": (3, True),
    "Blip": (3, True),
    "Segformer": (2, True),
    "CLIP": (3, False),
    "Bit": (3, False),
    "MobileNetV1": (2, False),
    "MobileNetV2": (2, False),
}
_ENDINGS = ("Fast", "Pil", "ImageProcessor", "FeatureExtractor")
_CENTRE = frozenset({"DeiT", "CLIP", "Bit", "MobileNetV1", "MobileNetV2"})
"""Those that cut out the middle where the file does not say."""


@dataclass(frozen=True)
class PictureSettings:
    """What is done with a picture.

    Attributes:
        framing: its size.
        scale: c; 1 where pixels are left as they are.
        mean: of each channel.
        std: of each channel.
    """

    framing: Framing
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, folders: tuple[Path, ...]) -> PictureSettings | None:
        """Those of the first folder that has any; None where none has.

        Raises:
            DataError: a processor that is not known here, or settings that are none.
        """
        for folder in folders:
            path = folder / FILE
            if not path.exists() and not path.is_symlink():
                continue
            try:
                return _read(path, read_config(folder, FILE))
            except CheckpointError as error:
                raise DataError(error.found, error.why, error.do) from None
        return None

    def applied(self, dataset: Dataset, max_memory: int | None) -> Dataset:
        """Pixels (n, c, h, w) as inputs of the network; grey ones in as many channels as there are means."""
        import torch

        channels = max(dataset.x.shape[1], len(self.mean))
        shape = (len(dataset.x), channels, *dataset.x.shape[2:])
        within(4 * math.prod(shape), max_memory, dataset.source)
        x = dataset.x.float().expand(shape) * self.scale
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        note = f"pixels scaled by {self.scale:.4g}, less {_few(self.mean)}, over {_few(self.std)}, as {FILE} says"
        return replace(dataset, x=(x - mean) / std, notes=(*dataset.notes, note))


def _read(path: Path, table: dict[str, Any]) -> PictureSettings:
    named = table.get("image_processor_type") or table.get("feature_extractor_type") or ""
    kind = str(named)
    for ending in _ENDINGS:
        kind = kind.removesuffix(ending)
    if kind not in KNOWN:
        why = f"it is of the kind {quoted(str(named))}, and curvlab knows {', '.join(KNOWN)}"
        do = "give arrays (pixel_values in an .npz), or a size of your own (--data photos:224x224)"
        raise DataError(f"pictures cannot be prepared by {quoted(path)}", why, do)
    resample, square = KNOWN[kind]
    resample = _whole(path, "resample", table.get("resample", resample), 5)
    size = _size(path, "size", table.get("size", 224), square) if table.get("do_resize", True) else None
    crop = None
    if table.get("do_center_crop", kind in _CENTRE):
        found = _size(path, "crop_size", table.get("crop_size", 224), True)
        crop = (found, found) if isinstance(found, int) else found
    normal = table.get("do_normalize", True)
    mean = _numbers(path, "image_mean", table.get("image_mean", [0.5] * 3)) if normal else (0.0,) * 3
    std = _numbers(path, "image_std", table.get("image_std", [0.5] * 3)) if normal else (1.0,) * len(mean)
    scale = (
        _number(path, "rescale_factor", table.get("rescale_factor", 1 / 255)) if table.get("do_rescale", True) else 1.0
    )
    if len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0:
        raise _wrong(path, "image_std", table.get("image_std"))
    return PictureSettings(Framing(size, crop, resample), scale, mean, std)


def _size(path: Path, key: str, value: Any, square: bool) -> tuple[int, int] | int:
    if isinstance(value, dict):
        if value.keys() >= {"height", "width"}:
            h, w = (_whole(path, key, value[side], MOST_SIDE) for side in ("height", "width"))
            return h, w
        if "shortest_edge" in value and "longest_edge" not in value:
            return _whole(path, key, value["shortest_edge"], MOST_SIDE)
        raise _wrong(path, key, value)
    side = _whole(path, key, value, MOST_SIDE)
    return (side, side) if square else side


def _numbers(path: Path, key: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= 3:
        raise _wrong(path, key, value)
    return tuple(_number(path, key, one) for one in value)


def _number(path: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e6:
        raise _wrong(path, key, value)
    return float(value)


def _whole(path: Path, key: str, value: Any, most: int) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not 0 <= value <= most
        or (key != "resample" and not value)
    ):
        raise _wrong(path, key, value)
    return value


def _wrong(path: Path, key: str, value: Any) -> DataError:
    return DataError(f"{quoted(path)} sets {quoted(key)} to {quoted(str(value)[:80])}", "it is no such setting")


def _few(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:.4g}" for number in dict.fromkeys(numbers))

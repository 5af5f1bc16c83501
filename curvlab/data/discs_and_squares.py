"""Small images of a disc and a square with the class of every pixel: a segmentation that needs no download."""

from __future__ import annotations

from curvlab.data.dataset import Dataset
from curvlab.data.registry import entry

EXAMPLES, SIDE = 500, 16
SEED = 0


def read_discs_and_squares() -> Dataset:
    """x (500, 1, 16, 16) in [0, 1], y (500, 16, 16) with 0 = background, 1 = disc, 2 = square.

    Every image has a background level 0–95 and one disc (radius 2–4) and one square (side 5–7) of levels 128–223,
    everything noisy by 0–31 of 255. Both lie inside the image; where they meet, the square is in front. Levels say
    nothing of the class: a network must look at outlines. Computed in whole numbers: the same on every machine.
    """
    import torch

    random = torch.Generator().manual_seed(SEED)

    def whole(low: int, high: int, *shape: int) -> torch.Tensor:
        """Uniform from low to high, both included, one per image and of `shape` beside."""
        return torch.randint(low, high + 1, (EXAMPLES, *(shape or (1, 1))), generator=random, device="cpu")

    rows, columns = torch.arange(SIDE, device="cpu")[:, None], torch.arange(SIDE, device="cpu")[None]

    def offsets(reach: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances of every pixel from a centre that is at least `reach` from the border."""
        down, across = (reach + whole(0, 2**20) % (SIDE - 2 * reach) for _ in range(2))
        return (rows - down).abs(), (columns - across).abs()

    radius, half = whole(2, 4), whole(2, 3)
    (down, across), (below, beside) = offsets(radius), offsets(half)
    disc, square = down**2 + across**2 <= radius**2, (below <= half) & (beside <= half)
    y = torch.where(square, 2, disc.long())
    levels = torch.stack([whole(0, 95), whole(128, 223), whole(128, 223)]).expand(-1, -1, SIDE, SIDE)
    x = levels.gather(0, y[None])[0] + whole(0, 31, SIDE, SIDE)
    source = f"shapes ({entry('shapes').source}, seed {SEED})"
    return Dataset("shapes", x[:, None].float() / 255, y, source, synthetic=True, task="classification")

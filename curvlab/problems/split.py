"""Split: a problem's training and test examples, the same for the same seed, and a fingerprint that shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.data.dataset import Dataset
from curvlab.data.fit import fit
from curvlab.data.load import load
from curvlab.data.registry import names
from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from curvlab.problems.problem import Problem


@dataclass(frozen=True)
class Split:
    """Examples to train on and examples held out, both with targets, as the network takes them."""

    train: Dataset
    test: Dataset


def load_split(problem: Problem, seed: int, data: str | Dataset | None = None, max_memory: int | None = None) -> Split:
    """The problem's data, or that of a name or path, or other examples, in two parts.

    IDX folders that come with a test set keep it. Elsewhere `problem.test_size` examples are drawn by `seed`, and the
    rest is shuffled by it; of a text the last ones are held out, and nothing is shuffled.

    Raises:
        DataError: it is not there, or does not fit the problem.
        MemoryBudgetError: it is larger than `max_memory`.
    """
    if isinstance(data, Dataset):
        train, test = _divided(data, problem, seed)
        return Split(_prepared(problem, train), _prepared(problem, test))
    spec = _found(problem) if data is None else data
    whole = load(spec, input_shape=problem.input_shape, seed=seed, max_memory=max_memory)
    own_test = None if spec in names() else _test_images(Path(spec).expanduser())
    if own_test is None:
        train, test = _divided(whole, problem, seed)
    else:
        train, test = whole, load(own_test, max_memory=max_memory)
    return Split(_prepared(problem, train), _prepared(problem, test))


def fingerprint(split: Split) -> str:
    """sha256 of types, shapes and little-endian bytes of x and y, the training part first, in their order: as hex."""
    digest = hashlib.sha256()
    for tensor in _tensors(split):
        array = tensor.detach().cpu().numpy()
        array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _tensors(split: Split) -> Iterator[Tensor]:
    for part in (split.train, split.test):
        yield from part.tensors()


def _found(problem: Problem) -> str:
    """The problem's own data, after a look whether it is there."""
    if problem.data not in names() and not Path(problem.data).exists():
        raise DataError(f"there is no '{problem.data}'", f"'{problem.name}' reads its data from disk", problem.obtain)
    return problem.data


def _prepared(problem: Problem, dataset: Dataset) -> Dataset:
    """Inputs by `fit`, as `analyze` has them, so that a saved network is profiled on what it was trained on."""
    fitted = fit(dataset, _outline(problem))
    x = fitted.x.float() if fitted.x.is_floating_point() else fitted.x
    if tuple(x.shape[1:]) != problem.input_shape:
        has, takes = ("x".join(map(str, shape)) for shape in (x.shape[1:], problem.input_shape))
        raise DataError(f"{dataset.source} holds examples of shape {has}", f"'{problem.name}' takes {takes}")
    return replace(fitted, x=x, y=_targets(problem, replace(fitted, x=x)))


def _outline(problem: Problem) -> nn.Module:
    """The network without its weights."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return problem.model()


def _targets(problem: Problem, dataset: Dataset) -> Tensor:
    y = dataset.x if problem.targets == "inputs" else dataset.y
    if y is None:
        raise DataError(f"{dataset.source} has no targets", f"'{problem.name}' is trained on {problem.targets}")
    if problem.targets == "labels" and y.is_floating_point():
        raise DataError(
            f"{dataset.source} has real numbers as targets", f"'{problem.name}' is trained on class numbers"
        )
    if problem.targets == "values":
        y = y.float().reshape(len(dataset), -1)
    if problem.likelihood == "bernoulli" and not bool(((y >= 0) & (y <= 1)).all()):
        raise DataError(
            f"{dataset.source} has targets outside 0 to 1",
            f"'{problem.name}' takes them for probabilities",
            "scale them",
        )
    return y


def _divided(whole: Dataset, problem: Problem, seed: int) -> tuple[Dataset, Dataset]:
    test_size = problem.test_size
    count = len(whole) - test_size
    if count < 1:
        raise DataError(f"{whole.source} holds {len(whole)} examples", f"{test_size} of them are to be held out")
    drawn = problem.held_out == "drawn"
    shuffled = whole.shuffled(seed) if drawn else whole
    how = f"drawn with seed {seed}" if drawn else "the last ones"
    notes = (*whole.notes, f"{count} examples to train on and {test_size} held out, {how}")

    def part(rows: slice) -> Dataset:
        return replace(shuffled.at(rows), notes=notes)

    return part(slice(count)), part(slice(count, None))


def _test_images(folder: Path) -> Path | None:
    """The test images of a folder of IDX files, where there are training images as well."""
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if "images" in path.name and "ubyte" in path.name)
    if not any(path.name.startswith("train") for path in files):
        return None
    return next((path for path in files if path.name.startswith(("t10k", "test"))), None)

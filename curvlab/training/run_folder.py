"""The folder of a run: model.safetensors, state/, metrics.jsonl, summary.json, and what else was asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curvlab.document.json import plain
from curvlab.errors import CheckpointError, CommandError, CurvlabError
from curvlab.training.plain_files import opened, plain_file, plain_folder


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run and the log in it."""

    path: Path

    @property
    def model(self) -> Path:
        """The network, as `curvlab analyze` takes it."""
        return self.path / "model.safetensors"

    @property
    def state(self) -> Path:
        """All that going on needs."""
        return self.path / "state" / "training.state"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """The result."""
        return self.path / "summary.json"

    @property
    def factors(self) -> Path:
        """Averaged statistics, when asked for."""
        return self.path / "factors.safetensors"

    @property
    def snapshots(self) -> Path:
        """The folder of networks after epochs, when asked for."""
        return self.path / "snapshots"

    def snapshot(self, epoch: int) -> Path:
        """The network after an epoch, when asked for."""
        return self.snapshots / f"epoch-{epoch:04d}.safetensors"

    def check_free(self) -> None:
        """Raise CommandError when there is a run in the folder."""
        if earlier := self._files():
            found = f"'{self.path}' already holds a run ({earlier[0].name})"
            raise CommandError(found, do="continue it with --resume, replace it with --force, or choose another --out")

    def begin(self) -> None:
        """Make the folder, empty of any earlier run; only files that a run writes are ever removed.

        Raises:
            CurvlabError: it cannot be made or written to, or it leads somewhere else.
        """
        self._check_folders()
        try:
            for file in (*self._files(), *self.snapshots.glob("epoch-*.safetensors")):
                file.unlink()
            self.state.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CurvlabError(f"'{self.path}' cannot be used", str(error.strerror), "choose another --out") from error

    def give_up(self) -> None:
        """Remove what a run that took no step has begun, so that the next try finds the folder free."""
        for file in self._files():
            file.unlink()
        for folder in (self.state.parent, self.path):
            with suppress(OSError):  # it holds something else
                folder.rmdir()

    def _files(self) -> list[Path]:
        return [file for file in self._places() if os.path.lexists(file)]

    def _places(self) -> tuple[Path, ...]:
        return self.model, self.state, self.metrics, self.summary, self.factors

    def check(self) -> None:
        """Do nothing when all that a run reads and writes here is plain.

        Raises:
            CheckpointError: a folder or a file is a link, a file has a second name, or something else is in its place.
        """
        self._check_folders()
        for file in self._places():
            plain_file(file)

    def _check_folders(self) -> None:
        for folder in (self.path, self.state.parent, self.snapshots):
            plain_folder(folder)

    def log(self, entry: Mapping[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        line = json.dumps(plain(entry), allow_nan=False) + "\n"
        try:
            with opened(self.metrics, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
                file.write(line.encode())
        except OSError as error:
            raise CurvlabError(f"'{self.metrics}' cannot be written", str(error.strerror)) from error

    def logged(self) -> int:
        """Bytes of metrics.jsonl, all of which are on disk when this returns."""
        if not plain_file(self.metrics):
            return 0
        with opened(self.metrics, os.O_RDWR) as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def cut_log(self, size: int) -> None:
        """Forget the lines after the first `size` bytes: they are of steps that will be taken again.

        Raises:
            CurvlabError: the log is shorter than that, or has no line that ends there.
        """
        there = self.metrics.stat().st_size if plain_file(self.metrics) else 0
        if there < size:
            found = f"'{self.metrics}' has {there} bytes, and had {size} when the state was saved"
            raise CurvlabError(found, "lines are missing", "restore it, or start again with --force")
        if there:
            with opened(self.metrics, os.O_RDWR) as file:
                file.seek(max(0, size - 1))
                if size and file.read(1) != b"\n":
                    found = f"'{self.metrics}' has no end of a line at byte {size}, where the saved part ends"
                    raise CheckpointError(found, "it was changed", "restore it, or start again with --force")
                file.truncate(size)

"""Candidate: what formats read of a path to tell whether it is theirs; each part is read once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats import strict_json
from curvlab.formats.model_config import CONFIG, read_config
from curvlab.formats.zip_archive import inner_names, open_archive
from curvlab.quoting import quoted

HEAD_BYTES = 512
MAX_JSON_BYTES = 32 * 2**20
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


class Candidate:
    """A regular file that is not empty, or a directory.

    Args:
        path: of it.

    Attributes:
        is_directory: whether it is a directory.
        head: the first 512 bytes of a file; empty for a directory.
        size: bytes of a file; 0 for a directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_directory = path.is_dir()
        self.head, self.size = b"", 0
        if not self.is_directory:
            self.size = path.stat().st_size
            with path.open("rb") as file:
                self.head = file.read(HEAD_BYTES)

    @property
    def is_zip(self) -> bool:
        """Whether it begins like a zip archive."""
        return self.head.startswith(_ZIP)

    @cached_property
    def entries(self) -> tuple[str, ...]:
        """Names of the entries of a zip archive; empty for everything else, in the order of the file.

        Raises:
            CheckpointError: the archive is broken or not safe to read.
        """
        if not self.is_zip:
            return ()
        with open_archive(self.path) as archive:
            return tuple(archive.namelist())

    @cached_property
    def inner_entries(self) -> frozenset[str]:
        """Names below the one folder of a zip archive, which is how torch writes; empty when there are several."""
        return inner_names(self.entries)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The `config.json` of a directory; empty without one.

        Raises:
            CheckpointError: it is no valid configuration, or a link out of the directory.
        """
        return read_config(self.path) if self.is_directory and (self.path / CONFIG).is_file() else {}

    @property
    def is_json(self) -> bool:
        """Whether it is text that begins as a JSON table does."""
        # A safetensors file may begin with "{" too (a header of 123 bytes), but then has zeros among its first bytes.
        return self.head.lstrip().startswith(b"{") and 0 not in self.head

    @cached_property
    def table(self) -> Mapping[str, Any]:
        """The JSON table of a file; empty for everything else."""
        try:
            return self.parsed()
        except CheckpointError:
            return {}

    def parsed(self) -> Mapping[str, Any]:
        """The JSON table of a file; empty for what does not begin like one.

        Raises:
            CheckpointError: it begins like one and is none.
        """
        if not self.is_json:
            return {}
        if self.size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{quoted(self.path)} is text beginning with '{{'", "it is far too long for an index of shards"
            )
        try:
            table: dict[str, Any] = strict_json.parse(self.path.read_bytes())
        except ValueError as error:
            raise CheckpointError(f"{quoted(self.path)} is text beginning with '{{', not a model", str(error)) from None
        return table

"""Format: how one kind of model file is told by its bytes, read, and turned into a network; and how it registers.

A format registers in a module that an entry point of the group `curvlab.formats` names, curvlab's own as well:

    register(
        Format(
            name="mine",
            what="a model of mine",
            support="weights-only",
            detect=lambda candidate: candidate.head.startswith(b"MINE"),
            read=deferred("my_package.reader:read"),
        )
    )

Formats are asked in the order of their registration, curvlab's own first, and the first that says yes reads the file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from curvlab.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from curvlab.formats.candidate import Candidate
    from curvlab.formats.checkpoint import Checkpoint
    from curvlab.formats.raw_checkpoint import RawCheckpoint

Support = Literal["runnable", "weights-only", "recognised only"]
Detect = Callable[["Candidate"], bool]
Read = Callable[[Path, int | None], "RawCheckpoint"]


class Network(NamedTuple):
    """A runnable module, or the reason why there is none.

    Attributes:
        module: the network in eval mode, its weights loaded; None without one.
        made_by: how it came about ("ONNX graph").
        notes: sentences for the user.
        code: the `"package.module:callable"` that the file names, which is run only with `trust`.
        folders: of models that it is made of besides the file's own.
    """

    module: nn.Module | None = None
    made_by: str | None = None
    notes: tuple[str, ...] = ()
    code: str | None = None
    folders: tuple[Path, ...] = ()


BuildNetwork = Callable[[Path, "RawCheckpoint", int | None], Network]
"""`build(path, raw, max_memory)`: the network that the file describes, filled with the tensors of `raw`."""


OnBase = Callable[[Path, "RawCheckpoint", "Checkpoint", bool], Network]


class NamedNetworks(NamedTuple):
    """Networks that a format can build for weights of any format, by a name given as `architecture`.

    Attributes:
        prefix: what the name begins with ("timm:"), or the whole of it ("hf").
        build: `build(path, raw, rest of the name, max_memory)`; raises CheckpointError where there is no network.
    """

    prefix: str
    build: Callable[[Path, RawCheckpoint, str, int | None], Network]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One kind of model file, and one line of `curvlab list formats`.

    Attributes:
        name: as in `Checkpoint.format`.
        what: what the format is, in words that complete "is …".
        support: "runnable" when the file alone can give a network; "weights-only" when it gives named tensors and
            layers, and a network with `--architecture`; "recognised only" when curvlab knows what it is and says so.
        detect: whether a path is of this format, told by its bytes. It may raise CheckpointError to refuse a path that
            is of this format but is not safe to look into.
        read: `read(path, max_memory)`: the tensors, without running code of the file; None for "recognised only".
        network: the network that the file itself describes; None where it holds weights only.
        needs: what the support, or more than it, asks for (of a format only recognised: what to do instead).
        extra: the optional packages that make the network, as in `pip install 'curvlab[extra]'`; empty for none.
        trust: whether the network is code in the file, run with `--trust` only.
        suffixes: of its files (".safetensors"): in a folder that says nothing else, they tell which files are models.
        last_resort: asked when no format's `detect` says yes; `read` then says what is wrong with the file.
        named: networks that it builds by name for weights of any format.
        on_base: `on_base(path, raw, base, merge)`: the network of a base model with what the file changes in it, of a
            format that holds changes only.
    """

    name: str
    what: str
    support: Support
    detect: Detect
    read: Read | None = None
    network: BuildNetwork | None = None
    needs: str = ""
    extra: str = ""
    trust: bool = False
    suffixes: tuple[str, ...] = ()
    last_resort: Detect | None = None
    named: NamedNetworks | None = None
    on_base: OnBase | None = None


FORMATS: Registry[Format] = Registry("format", "curvlab.formats", "curvlab.formats.builtin")
"""Every format by its name, in the order in which they are asked."""


def register(entry: Format) -> Format:
    """Make a format known by its name; returns it.

    Raises:
        ValueError: another format has the name.
    """
    return FORMATS.register(entry.name, entry)


def deferred(place: str) -> Callable[..., Any]:
    """The function at `"package.module:function"`, imported when it is called: readers import torch, detection does
    without."""

    def call(*arguments: Any) -> Any:
        module, _, function = place.partition(":")
        return getattr(importlib.import_module(module), function)(*arguments)

    call.__qualname__ = place
    return call

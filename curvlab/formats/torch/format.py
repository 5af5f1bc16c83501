"""Registers PyTorch checkpoints (zip, of before version 1.6, bare pickles), and two formats that are only named."""

from __future__ import annotations

import io
import re
import tarfile

from curvlab.formats.candidate import Candidate
from curvlab.formats.format import Format, deferred, register
from curvlab.formats.torch.pickle_trace import LEGACY_MAGIC, MAX_BYTES, NotAPickle, read_pickle

_RUN = "--architecture SPEC to run it"


def begins_like_tar(head: bytes) -> bool:
    """Whether the first block of a file is the header of a tar archive."""
    if len(head) < tarfile.BLOCKSIZE or not head.strip(b"\0"):
        return False
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _detect_zip(candidate: Candidate) -> bool:
    return "data.pkl" in candidate.inner_entries and "constants.pkl" not in candidate.inner_entries


def _detect_legacy(candidate: Candidate) -> bool:
    # torch unpacks a tar archive that a file begins with before it looks for its own number.
    return LEGACY_MAGIC in candidate.head[:32] and not begins_like_tar(candidate.head)


def _detect_pickle(candidate: Candidate) -> bool:
    """By the mark of the protocols since 2; older pickles have none and are followed from end to end."""
    if LEGACY_MAGIC in candidate.head[:32]:
        return False  # torch's old format, or a tar archive that begins like it
    if re.match(rb"\x80[\x02-\x05]", candidate.head):
        return True
    if not re.match(rb"[(\]}clpIFLVSN]", candidate.head):
        return False
    with candidate.path.open("rb") as file:
        stream = io.BytesIO(file.read(MAX_BYTES))
    try:
        read_pickle(stream)
    except NotAPickle:
        return False
    return stream.tell() == candidate.size


register(
    Format(
        name="torch-zip",
        what="a PyTorch checkpoint (.pt, .pth, .bin, .ckpt)",
        support="weights-only",
        detect=_detect_zip,
        read=deferred("curvlab.formats.torch.file:read_torch_zip"),
        needs=_RUN,
        suffixes=(".pt", ".pth", ".bin", ".ckpt"),
    )
)
register(
    Format(
        name="torch-legacy",
        what="a PyTorch checkpoint of before version 1.6",
        support="weights-only",
        detect=_detect_legacy,
        read=deferred("curvlab.formats.torch.file:read_torch_legacy"),
        needs=_RUN,
    )
)
register(
    Format(
        name="pickle",
        what="a bare pickle",
        support="weights-only",
        detect=_detect_pickle,
        read=deferred("curvlab.formats.torch.pickle_recovery:read_bare_pickle"),
        needs=f"{_RUN}; it is never opened",
    )
)
register(
    Format(
        name="torch-package",
        what="a torch.package archive",
        support="recognised only",
        detect=lambda candidate: ".data/version" in candidate.inner_entries.union(candidate.entries),
        needs="export its weights with safetensors.torch.save_file(model.state_dict(), path)",
    )
)
register(
    Format(
        name="torch-tar",
        what="a PyTorch checkpoint of before version 0.4 (tar)",
        support="recognised only",
        detect=lambda candidate: begins_like_tar(candidate.head),
        needs="save the weights with torch.save(model.state_dict(), path)",
    )
)

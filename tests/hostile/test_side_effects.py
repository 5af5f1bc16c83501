"""What loading a model leaves behind in the home of the user: nothing, whatever the libraries do by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile.samples import SAMPLES

CODE = """
import sys
from curvlab.formats.load import load
checkpoint = load(sys.argv[1])
assert checkpoint.module is not None, checkpoint.notes
assert sys.argv[2] in sys.modules
"""


@pytest.mark.parametrize(
    ("sample", "library"),
    [("onnx", "onnxruntime"), ("keras", "keras"), ("huggingface", "transformers")],
)
def test_a_network_is_built_without_a_trace_at_home(sample: str, library: str, tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "model"
    home.mkdir()
    folder.mkdir()
    path = SAMPLES[sample].write(folder)
    own = ("KERAS_HOME", "HF_HOME", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in own} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path), library], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [str(left.relative_to(home)) for left in home.rglob("*")] == []


def test_the_settings_of_a_user_of_keras_are_kept(tmp_path: Path) -> None:
    settings = tmp_path / ".keras" / "keras.json"
    settings.parent.mkdir()
    settings.write_text('{"floatx": "float64"}')
    folder = tmp_path / "model"
    folder.mkdir()
    code = f"{CODE}\nimport keras\nprint(keras.config.floatx())"
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_HOME"} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", code, str(SAMPLES["keras"].write(folder)), "keras"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "float64\n", done.stderr

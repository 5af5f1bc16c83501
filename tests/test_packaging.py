"""The package is what pyproject says: every folder is in it, the version is one, the console script leads somewhere."""

from __future__ import annotations

import importlib
import importlib.metadata
import tomllib
from pathlib import Path

import curvlab

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_under(folder, name):
    found = [name] if (folder / "__init__.py").is_file() else []
    for child in sorted(folder.iterdir()):
        if child.is_dir() and any(child.rglob("*.py")):
            found += packages_under(child, f"{name}.{child.name}")
    return found


def test_every_folder_with_code_is_a_package_that_is_installed():
    on_disk = {*packages_under(ROOT / "curvlab", "curvlab"), *packages_under(ROOT / "cli", "curvlab_cli")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == on_disk
    with_code = {path.parent for folder in ("curvlab", "cli") for path in (ROOT / folder).rglob("*.py")}
    assert [folder for folder in sorted(with_code) if not (folder / "__init__.py").is_file()] == []


def test_the_version_is_written_once_and_read_everywhere():
    assert importlib.metadata.version("curvlab") == PROJECT["project"]["version"] == curvlab.__version__


def test_the_console_script_exists():
    module, _, function = PROJECT["project"]["scripts"]["curvlab"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_data_files_are_packed():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["curvlab"]
    packed = {path for pattern in patterns for path in (ROOT / "curvlab").glob(pattern)}
    others = {path for path in (ROOT / "curvlab").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert others <= packed
    assert (ROOT / "curvlab/data/embedded.npz") in packed


def test_what_is_imported_is_declared():
    declared = {requirement.split(">")[0].split("[")[0] for requirement in PROJECT["project"]["dependencies"]}
    assert {"typer", "rich", "torch", "safetensors", "onnx", "h5py", "matplotlib", "numpy"} <= declared


def test_pins_are_exact_and_cover_the_core():
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins)
    names = {pin.split("==")[0].lower() for pin in pins}
    assert {r.split(">")[0] for r in PROJECT["project"]["dependencies"]} <= names

"""A plain copy of the tree as if it were installed: folders for PYTHONPATH, nothing is downloaded or built.

The command line's package is a link to cli/, and a folder of metadata tells Python what the tree registers (its layers,
problems and the like are found through entry points).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def environment(root: Path = ROOT) -> Iterator[dict[str, str]]:
    """Variables for child processes that see the package and its plugins, as long as the context lasts."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "curvlab_cli").symlink_to(root / "cli", target_is_directory=True)
        projects = [root, *sorted(path.parent for path in root.glob("plugins/*/pyproject.toml"))]
        for project in projects:
            _describe(project, folder)
        before = os.environ.get("PYTHONPATH")
        path = [str(folder), *map(str, projects), *([before] if before else [])]
        yield {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}


def _describe(project: Path, folder: Path) -> None:
    """Write the metadata that installing `project` would have left."""
    facts = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = facts["name"], facts["version"]
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = []
    for group, points in facts.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

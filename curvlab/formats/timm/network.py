"""The network of a timm directory, or of `--architecture timm:NAME`: made by timm by its registered name, filled here.

timm's own `local-dir:` reads `config.json` and then the weights; here the same settings of it make the network, and the
weights come from the vetted reader, every one accounted for, so that timm opens no file and asks no server.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from curvlab.errors import CheckpointError
from curvlab.formats.architecture import load_weights
from curvlab.formats.bounded_construction import bounded_construction
from curvlab.formats.format import Network
from curvlab.formats.model_config import read_config, settings_of
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.quoting import quoted, reason

MAX_NUMBER = 1_000_000
# A name of timm's registry with its tag; "hf-hub:…" would ask a server, "local-dir:…" open files.
_NAME = re.compile(r"[A-Za-z0-9_]{1,80}(?:\.[A-Za-z0-9_]{1,80})?")


def timm_network(path: Path, stored: RawCheckpoint, max_memory: int | None) -> Network:
    """The network that a timm directory's `config.json` names, in eval mode, or the reason why not."""
    try:
        config = read_config(path)
        arguments = config.get("model_args") or {}
        if not isinstance(arguments, dict):
            raise CheckpointError("the model_args of config.json are no table")
        for key in ("num_classes", "global_pool"):
            if config.get(key) is not None:
                arguments.setdefault(key, config[key])
        for name, _, value in settings_of(arguments):
            if isinstance(value, int | float) and abs(value) > MAX_NUMBER:
                raise CheckpointError(f"config.json sets {quoted(name)} to {value}, beyond what a network can have")
        return by_name(path, stored, config.get("architecture"), max_memory, arguments)
    except CheckpointError as error:
        return Network(notes=(f"weights only: {error}",))


def by_name(
    path: Path, stored: RawCheckpoint, name: Any, max_memory: int | None, arguments: dict[str, Any] | None = None
) -> Network:
    """timm's network of that name with the weights of the file; the number of classes is the classifier's own.

    Raises:
        CheckpointError: no timm, no such name, or weights that are not the network's.
    """
    timm = _timm()
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not timm.is_model(name):
        raise CheckpointError(f"timm {timm.__version__} has no model named {quoted(name)}")
    held = sum(spec.stored_bytes for spec in stored.specs.values())
    chosen = dict(arguments or {})
    if "num_classes" not in chosen and (classes := _classes(timm, name, stored)) is not None:
        chosen["num_classes"] = classes
    try:
        with torch.random.fork_rng(devices=[]), bounded_construction(len(stored.specs), held, max_memory):
            module = timm.create_model(name, pretrained=False, **chosen)
    except CheckpointError:
        raise
    except Exception as error:  # arguments from the file that the network does not take
        raise CheckpointError(f"timm cannot make {quoted(name)}", reason(error)) from error
    return Network(load_weights(path, module, stored.tensors, stored.aliases), f"timm:{name}")


def _classes(timm: Any, name: str, stored: RawCheckpoint) -> int | None:
    """Rows of the stored classifier, whose name timm's registry knows."""
    settings = timm.get_pretrained_cfg(name)
    classifier = getattr(settings, "classifier", None)
    spec = stored.specs.get(f"{classifier}.weight") if isinstance(classifier, str) else None
    return spec.shape[0] if spec is not None and spec.shape else None


def _timm() -> Any:
    try:
        import timm
    except Exception as error:  # timm imports torchvision, which fails in many ways beside a torch it was not built for
        do = "pip install 'curvlab[timm]'; its torchvision must be the one built for this torch"
        raise CheckpointError("timm, which makes the network, cannot be imported", reason(error), do) from error
    return timm

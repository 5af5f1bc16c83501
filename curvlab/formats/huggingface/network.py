"""The network of a Hugging Face directory: made by transformers from vetted data alone, filled with vetted tensors.

transformers gets the configuration as a table and the weights as tensors, so it resolves no name and opens no file;
code from the directory (`auto_map`), kernels from the net (`_attn_implementation`) and foreign quantisation are refused
before the call. Whatever keeps the network from being made leaves the weights and becomes a note.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.errors import CheckpointError
from curvlab.formats.bounded_construction import bounded_construction
from curvlab.formats.format import Network
from curvlab.formats.model_config import read_config, settings_of
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.quoting import listed, quoted, reason

MAX_NUMBER = 2**31
MAX_LAYERS = 1_000
MAX_LABELS = 1_000_000
_FOREIGN = frozenset({"auto_map", "quantization_config", "use_pretrained_backbone", "use_timm_backbone", "use_kernels"})


class NoNetwork(Exception):  # noqa: N818 - it becomes a note
    """Why the directory gives weights only."""


def huggingface_network(path: Path, stored: RawCheckpoint, max_memory: int | None) -> Network:
    """The network that `config.json` beside the weights describes, in eval mode and in float32, or the reason why not.

    Args:
        path: the directory, or a weights file in it.
        stored: its weights.
        max_memory: bytes that the network may take.
    """
    directory = path if path.is_dir() else path.parent
    try:
        module, notes = _network(directory, stored, max_memory)
    except (NoNetwork, CheckpointError) as error:
        return Network(notes=(f"weights only: {error}",))
    return Network(module, f"config.json ({type(module).__name__} of transformers)", tuple(notes))


def network_beside(path: Path, stored: RawCheckpoint, _: str, max_memory: int | None) -> Network:
    """As `huggingface_network`, for a network that was asked for.

    Raises:
        CheckpointError: there is none, and why.
    """
    network = huggingface_network(path, stored, max_memory)
    if network.module is None:
        raise CheckpointError("; ".join(network.notes), do="give --architecture package.module:callable instead")
    return network


def _network(directory: Path, stored: RawCheckpoint, max_memory: int | None) -> tuple[nn.Module, list[str]]:
    config = read_config(directory)
    _check_settings(config)
    if (directory / "adapter_config.json").exists():
        raise NoNetwork("an adapter (adapter_config.json) names a base model elsewhere: merge it into the model first")
    with quiet_and_offline():
        kind, made = _class_and_config(config)
        tensors = {
            name: stored.tensors[kept] for name, kept in (*((n, n) for n in stored.specs), *stored.aliases.items())
        }
        held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        try:
            # First without memory: what the configuration asks for is compared with what the file holds.
            with torch.device("meta"), bounded_construction(len(tensors), held, max_memory):
                kind(made)
            with torch.random.fork_rng(devices=[]):
                module, info = kind.from_pretrained(
                    None,
                    config=made,
                    state_dict=tensors,
                    dtype=torch.float32,
                    attn_implementation="eager",
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    output_loading_info=True,
                )
        except CheckpointError:
            raise
        except Exception as error:  # a configuration and weights that do not fit may fail anywhere in transformers
            raise NoNetwork(f"transformers cannot make the network ({reason(error)})") from error
    _check_loaded(module, info)
    return module.eval(), _notes(module, tensors, info)


def _check_settings(config: Mapping[str, Any]) -> None:
    for name, key, value in settings_of(config):
        if (key in _FOREIGN or key.endswith(("_implementation", "_implementation_internal"))) and value:
            raise NoNetwork(
                f"config.json sets {quoted(name)}, which may load code or weights from elsewhere: "
                "curvlab never does; take it out if the network runs without it"
            )
        number = isinstance(value, int | float) and not isinstance(value, bool)
        most = MAX_LAYERS if "layers" in key else MAX_LABELS if key == "num_labels" else MAX_NUMBER
        if (
            number
            and abs(value) > most
            and value not in (float("inf"), float("-inf"))
            and not _is_large_constant(value)
        ):
            raise NoNetwork(f"config.json sets {quoted(name)} to {value}, beyond what a network can have ({most})")


def _is_large_constant(value: float) -> bool:
    """Lengths that mean "without end" in tokenizers' and models' settings (1e30), always floats."""
    return isinstance(value, float) and value >= 1e18


def _class_and_config(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """transformers' own class for the first of `architectures`, and the configuration as its class reads it."""
    transformers = _transformers()
    model_type, names = config.get("model_type"), config.get("architectures")
    if not isinstance(model_type, str) or not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise NoNetwork("config.json names no model_type and architectures")
    known = getattr(transformers, "CONFIG_MAPPING", {})
    if model_type not in known:
        raise NoNetwork(f"this version of transformers knows no model of type {quoted(model_type)}")
    try:
        # Only a name of transformers' own namespace, for a class that belongs to this type of model.
        kind: Any = getattr(transformers, names[0], None) if names[0].isidentifier() else None
        config_class = known[model_type]
    except Exception as error:
        raise NoNetwork(f"transformers cannot import {quoted(names[0])} ({reason(error)})") from error
    is_model = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not is_model or kind.config_class is not config_class:
        raise NoNetwork(f"transformers has no model {quoted(names[0])} for the type {quoted(model_type)}")
    try:
        return kind, config_class.from_dict(dict(config))
    except Exception as error:
        raise NoNetwork(f"transformers refuses config.json ({reason(error)})") from error


def _transformers() -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise NoNetwork("transformers is not installed, which makes the network: pip install 'curvlab[hf]'")
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is not None:
        try:
            importlib.import_module("torchvision")
        except Exception:
            # One built for another torch fails, and transformers with it; without any it works.
            sys.modules["torchvision"] = None  # type: ignore[assignment]
    import transformers

    return transformers


def _check_loaded(module: nn.Module, info: Mapping[str, Any]) -> None:
    missing, wrong = sorted(info.get("missing_keys", ())), [str(key) for key in info.get("mismatched_keys", ())]
    if missing or wrong:
        said = [f"the file has no {listed(missing)}"] if missing else []
        said += [f"another shape have {listed(sorted(wrong))}"] if wrong else []
        raise NoNetwork(
            f"{', '.join(said)}: transformers would start these weights anew, at random, and every curvature "
            f"of {type(module).__name__} would be meaningless"
        )
    if info.get("error_msgs"):
        raise NoNetwork(f"transformers could not load the weights ({quoted(info['error_msgs'][0])})")


def _notes(module: nn.Module, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> list[str]:
    notes = []
    unexpected = sorted(info.get("unexpected_keys", ()))
    if unexpected:
        notes.append(f"in the file but not in the network, and not used: {listed(unexpected)}")
    renamed = stored_names(module, {name: tensors[name] for name in tensors if name not in unexpected})
    if renamed:
        pairs = [f"{ours} is {theirs} in the file" for ours, theirs in renamed.items()]
        notes.append(f"transformers renamed {len(pairs)} tensors: {listed(pairs, 3)}")
    return notes


def stored_names(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name in the network -> another name in the file, of parameters whose numbers are those of one stored tensor."""
    names = dict(module.named_parameters())
    free = [name for name in tensors if name not in names]
    found: dict[str, str] = {}
    for ours, parameter in names.items():
        if ours in tensors:
            continue
        for theirs in free:
            stored = tensors[theirs]
            if stored.shape == parameter.shape and torch.equal(stored.to(parameter.dtype), parameter.detach()):
                found[ours] = theirs
                free.remove(theirs)
                break
    return found


@contextmanager
def quiet_and_offline() -> Iterator[None]:
    """Silence transformers' tables and progress bars, and forbid it the network."""
    if importlib.util.find_spec("transformers") is None:
        yield
        return
    _transformers()
    from huggingface_hub import constants
    from transformers.utils import logging as module

    logging: Any = module
    verbosity, offline = logging.get_verbosity(), constants.HF_HUB_OFFLINE
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    constants.HF_HUB_OFFLINE = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)
        with suppress(AttributeError):
            if bars:
                logging.enable_progress_bar()

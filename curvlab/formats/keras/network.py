"""The network of a .keras or full .h5 file, built by Keras on the torch backend once its description has been checked.

Before Keras sees the file: the description names nothing but Keras' own layers (`keras_config`), the archive holds
nothing but the description and the weights, the HDF5 file has hard links only (its reader saw to that), and a trial on
the "meta" device, which takes no memory, has as many weights as the file.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats.format import Network
from curvlab.formats.hdf5.file import KerasCheckpoint
from curvlab.formats.hdf5.keras_config import Foreign, check, parse
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.quoting import quoted, reason

# Layers whose old names for arguments (tf.keras) today's Keras does not take.
_RECURRENT = ("LSTM", "GRU", "SimpleRNN")
_OUTPUT_ACTIVATIONS = ("softmax", "sigmoid")


def keras_network(path: Path, stored: RawCheckpoint, max_memory: int | None = None) -> Network:
    """The network that the file describes, with its weights; without one, the reason in the notes.

    Args:
        path: of the file.
        stored: what `read_keras` or `read_hdf5` found in it.
        max_memory: bytes that the network may take.

    Raises:
        CheckpointError: the description names code that no network uses: the file is meant to do harm.
    """
    if not isinstance(stored, KerasCheckpoint) or stored.config is None:
        why = "the file holds weights only"
        return Network(notes=(f"{why}: --architecture package.module:callable gives a full profile",))
    try:
        config = parse(stored.config)
        check(config)
        _check_file(stored, max_memory)
        return _built(path, stored)
    except Foreign as error:
        if error.hostile:
            raise CheckpointError(
                f"{quoted(path)} is not safe to read", str(error), "get the model from its author again"
            ) from None
        return Network(notes=(f"no network was built, for {error}: its weights are analysed without data",))


def _check_file(stored: KerasCheckpoint, max_memory: int | None) -> None:
    if not stored.plain:
        raise Foreign("the file holds more than a description and weights, which Keras would read too")
    needed = sum(spec.stored_bytes for spec in stored.specs.values())
    if max_memory is not None and needed > max_memory:
        raise Foreign(f"its weights take {needed} bytes and --max-memory allows {max_memory}")
    if importlib.util.find_spec("keras") is None:
        raise Foreign("Keras is not installed (pip install 'curvlab[keras]')")


def _built(path: Path, stored: KerasCheckpoint) -> Network:
    from curvlab.formats.keras.module import KerasModule

    keras = _keras()
    custom = {name: _tolerant(getattr(keras.layers, name)) for name in _RECURRENT} if stored.format == "hdf5" else {}
    try:
        with warnings.catch_warnings(), _named(path, ".keras" if stored.format == "keras" else ".h5") as name:
            # Remarks on old ways of writing files, and on numpy by old Keras: for authors, not for readers.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            with keras.device("meta"):
                _check_size(stored, keras.saving.load_model(name, custom, compile=False, safe_mode=True))
            model = keras.saving.load_model(name, custom, compile=False, safe_mode=True)
            for layer in model._flatten_layers():
                if isinstance(layer, tuple(custom.values())):
                    layer.__class__ = getattr(
                        keras.layers, type(layer).__name__
                    )  # built: from here on it is Keras' own
            model, taken_off = _with_logits(keras, model)
            module = KerasModule(model)
    except Foreign:
        raise
    except Exception as error:  # whatever Keras raises about an untrusted description
        raise Foreign(f"Keras cannot build it ({type(error).__name__}: {reason(error)})") from None
    return Network(module, f"Keras {keras.__version__}", taken_off)


def _keras() -> Any:
    """The package, on the torch backend.

    Raises:
        Foreign: it runs on another backend, or cannot be imported.
    """
    if "keras" not in sys.modules:
        chosen = os.environ.get("KERAS_BACKEND", "torch")
        if chosen != "torch":
            raise Foreign(f"KERAS_BACKEND is {quoted(chosen)} and only Keras on torch can be recorded")
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        with _without_traces():
            import keras
    except Exception as error:  # a half-installed package raises anything
        raise Foreign(f"Keras cannot be imported ({type(error).__name__}: {reason(error)})") from None
    if keras.config.backend() != "torch":
        raise Foreign(f"Keras was imported on the backend {quoted(keras.config.backend())}, and torch is needed")
    return keras


@contextmanager
def _without_traces() -> Iterator[None]:
    """Inside, Keras is imported without writing settings to the user's home, and without matplotlib, which would list
    the system's fonts and keep them there. Settings that the user has written are read."""
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    unwanted = "matplotlib" not in sys.modules
    with tempfile.TemporaryDirectory() as nowhere:
        borrowed = "KERAS_HOME" not in os.environ and not (home / "keras.json").exists()
        if borrowed:
            os.environ["KERAS_HOME"] = nowhere
        if unwanted:
            sys.modules["matplotlib"] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            if borrowed:
                del os.environ["KERAS_HOME"]
            if unwanted:
                del sys.modules["matplotlib"]


def _check_size(stored: KerasCheckpoint, trial: Any) -> None:
    """The description asks for no more weights than the file has; the trial was built on a device without memory."""
    wanted = sum(variable.value.numel() for variable in trial.variables if variable.value.is_floating_point())
    held = sum(spec.elements for spec in stored.specs.values())
    if wanted > held:
        raise Foreign(f"its description asks for {wanted} weights and the file holds {held}")


def _tolerant(base: Any) -> Any:
    """A recurrent layer that takes the arguments of tf.keras which today's Keras has dropped."""

    class Tolerant(base):  # type: ignore[misc]
        def __init__(self, *args: Any, time_major: bool = False, implementation: int = 2, **kwargs: Any) -> None:
            if time_major:
                raise ValueError("time_major=True, which today's Keras cannot run")
            super().__init__(*args, **kwargs)

    Tolerant.__name__ = Tolerant.__qualname__ = base.__name__
    return Tolerant


def _with_logits(keras: Any, model: Any) -> tuple[Any, tuple[str, ...]]:
    """Likelihoods take logits: a softmax or sigmoid at the end of the network is taken off, and the user told."""
    notes = []
    for layer in _last(model):
        name = getattr(getattr(layer, "activation", None), "__name__", "")
        if name in _OUTPUT_ACTIVATIONS and not hasattr(layer, "cell"):
            layer.activation = keras.activations.linear
            notes.append(
                f"the {name} at the end of the network ({quoted(layer.name)}) is left off: its outputs are logits"
            )
    end: Any = model.layers[-1] if model.layers else None
    if type(end) is keras.layers.Softmax and len(model.outputs) == 1:
        model = keras.Model(model.inputs, end.input)
        notes.append(f"the softmax at the end of the network ({quoted(end.name)}) is left off: its outputs are logits")
    return model, tuple(notes)


def _last(model: Any) -> list[Any]:
    """The layers whose outputs are the network's."""
    last = {id(layer): layer for tensor in model.outputs for layer in [tensor._keras_history.operation]}
    return [end for layer in last.values() for end in (_last(layer) if hasattr(layer, "layers") else [layer])]


@contextmanager
def _named(path: Path, suffix: str) -> Iterator[str]:
    """A path to the file with the ending by which Keras tells formats."""
    if path.suffix == suffix or (suffix == ".h5" and path.suffix == ".hdf5"):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(path.resolve())
        yield str(link)

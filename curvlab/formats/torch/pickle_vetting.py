"""What a pickle written by torch may do: name the storages of the file and lay tensors over them, and nothing else.

torch's own `weights_only` reader already runs no code of the file. It still believes its numbers: a tensor may claim
more elements than its storage holds (torch then grows the storage), `torch.Tensor(10**12)` is an allowed call, a stride
of zero makes a petabyte of four bytes. So the pickle is read inertly first, and torch reads it only when every call is
one of a few that cannot allocate, with numbers that fit the file.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

from curvlab.errors import CheckpointError
from curvlab.formats.dtypes import ITEM_BYTES, STORAGES
from curvlab.formats.torch.pickle_trace import Call, Contents, Global, Persistent
from curvlab.quoting import listed, quoted, reason

# Calls that lay a tensor over a storage: name -> where its dtype stands among the arguments, None when the storage has
# it.
TENSORS = {
    "torch._utils._rebuild_tensor": None,
    "torch._utils._rebuild_tensor_v2": None,
    "torch._utils._rebuild_tensor_v3": 6,
    "torch._utils._rebuild_qtensor": None,
}
# Calls that make no more than what they are given.
_WRAPPERS = frozenset(
    {
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._tensor._rebuild_from_type_v2",
        "torch.serialization._get_layout",
        "torch.Size",
        "torch.device",
        "collections.OrderedDict",
        "collections.Counter",
        "builtins.set",
        "builtins.complex",
        "__builtin__.set",
        "__builtin__.complex",
        "_codecs.encode",
    }
)
_TABLES = frozenset({"collections.OrderedDict", "collections.Counter"})
_SETS = frozenset({"builtins.set", "__builtin__.set"})
# Names that stand among the arguments of those calls.
_NAMES = frozenset(
    {
        "torch.storage.UntypedStorage",
        "torch.storage.TypedStorage",
        "torch.nn.parameter.Parameter",
        "torch.Tensor",
        "torch.strided",
        "torch.per_tensor_affine",
        "torch.per_tensor_symmetric",
        "torch.per_channel_affine",
        "torch.per_channel_symmetric",
    }
)
# An expanded tensor of at most this many elements may be larger than its storage (buffers such as repeated ones are).
MAX_REPEATED = 2**20
_TEXT_CODECS = frozenset({"latin1", "latin-1", "utf-8", "utf8", "ascii"})


class Storage(NamedTuple):
    """A storage as the pickle declares it: the key of its bytes in the file, the element type, the element count."""

    key: str
    dtype: str
    elements: int

    @property
    def stored_bytes(self) -> int:
        """Bytes it must have in the file."""
        return self.elements * ITEM_BYTES[self.dtype]


class Layout(NamedTuple):
    """A tensor as a window on a storage; offset and strides count elements of `dtype`."""

    storage: Storage
    dtype: str
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """Elements from the first to the last one used."""
        if 0 in self.sizes:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.sizes, self.strides, strict=True))


def vetted_storages(path: Path, contents: Contents) -> list[Storage]:
    """All storages that the pickle refers to, once its calls are known to be harmless and its numbers to fit.

    Raises:
        CheckpointError: foreign classes (named in the sentence), or a tensor larger than its storage.
    """
    foreign = foreign_names(contents)
    if foreign:
        raise refused_classes(path, foreign)
    for call in contents.calls:
        _check_call(path, call)
    return declared_storages(path, contents)


def foreign_names(contents: Contents) -> list[str]:
    """The classes and functions of a pickle that are not among the few harmless ones."""
    foreign = [str(name) for name in contents.globals if not _is_allowed(name)]
    return foreign + [reference.identifier[1].name for reference in contents.persistent if _is_module_source(reference)]


def declared_storages(path: Path, contents: Contents) -> list[Storage]:
    """All storages that the pickle refers to."""
    return [_storage(path, reference) for reference in contents.persistent if not _is_module_source(reference)]


def tensor_layout(path: Path, name: str, arguments: tuple[Any, ...], storage: Storage | None = None) -> Layout:
    """How a call of one of `TENSORS` lays a tensor over a storage, once its numbers are known to fit.

    Args:
        path: for the sentences of errors.
        name: of the function that is called.
        arguments: what it is called with, the first a reference to a storage.
        storage: the one that the first argument stands for, where it is no reference.

    Raises:
        CheckpointError: sizes, strides or an offset that cannot be, or that reach beyond the storage.
    """
    return _check_tensor(path, arguments, TENSORS[name], storage)


def refused_classes(path: Path, foreign: list[str]) -> CheckpointError:
    """The sentence for a pickle that names classes of its own: which, and how to get the weights out of it."""
    is_network = any(name.startswith("torch.nn.modules.") for name in foreign)
    what = "holds a whole pickled network, calling for" if is_network else "is a pickle that calls for"
    return CheckpointError(
        f"{quoted(path)} {what} {listed(sorted(set(foreign)))}",
        "opening it would run code from the file, which curvlab never does",
        "where you trust it, save the weights alone with torch.save(model.state_dict(), path)",
    )


def _is_allowed(name: Global) -> bool:
    text = str(name)
    return (
        text in TENSORS
        or text in _WRAPPERS
        or text in _NAMES
        or (name.module in {"torch", "torch.cuda"} and name.name in STORAGES)
        or (name.module == "torch" and name.name in ITEM_BYTES)
    )


def _is_module_source(reference: Persistent) -> bool:
    """Files of before 0.4 refer to the source code of the pickled modules beside the storages."""
    match reference.identifier:
        case ("module", Global(), *_):
            return True
    return False


def _storage(path: Path, reference: Persistent) -> Storage:
    identifier = reference.identifier
    if not (isinstance(identifier, tuple) and len(identifier) in (5, 6) and identifier[0] in ("storage", b"storage")):
        raise damaged(path, "it refers to something that is no storage")
    _, kind, key, _, elements, *view = identifier
    untyped = isinstance(kind, Global) and kind.name == "UntypedStorage"
    dtype = "uint8" if untyped else STORAGES.get(kind.name) if isinstance(kind, Global) else None
    if dtype is None or not isinstance(key, str) or not _is_size(elements):
        raise damaged(path, "it describes a storage that cannot be")
    if view and view[0] is not None:
        # Old files cut storages into views: (key of the view, first element, number of elements).
        if not (isinstance(view[0], tuple) and len(view[0]) == 3 and all(map(_is_size, view[0][1:]))):
            raise damaged(path, f"storage {quoted(key)} is viewed in a way that cannot be")
        if view[0][1] + view[0][2] > elements:
            raise damaged(path, f"a view of storage {quoted(key)} is larger than the storage")
    return Storage(key, dtype, elements)


def _check_call(path: Path, call: Call) -> None:
    name, arguments = str(call.function), call.arguments
    if ((call.pairs or call.state is not None) and name not in _TABLES) or (call.items and name not in _SETS):
        # torch's reader would put a new storage under a tensor that was made before, or write into it.
        raise damaged(path, f"it changes the result of {quoted(name)} afterwards")
    while name == "torch._tensor._rebuild_from_type_v2":
        # A tensor with attributes: (how to rebuild it, its class, the arguments of the rebuilding, the attributes).
        if not isinstance(arguments, tuple) or len(arguments) < 3:
            raise damaged(path, "a tensor is rebuilt without its parts")
        name, arguments = str(arguments[0]), arguments[2]
    if not isinstance(arguments, tuple):
        raise damaged(path, f"{quoted(name)} is called without arguments")
    if name in TENSORS:
        _check_tensor(path, arguments, TENSORS[name])
    elif name == "_codecs.encode":
        if len(arguments) != 2 or arguments[1] not in _TEXT_CODECS:
            raise refused_classes(path, [name])
    elif name not in _WRAPPERS:
        raise refused_classes(path, [name])


def _check_tensor(path: Path, arguments: tuple[Any, ...], dtype_at: int | None, given: Storage | None = None) -> Layout:
    storage, offset, sizes, strides = (*arguments, None, None, None, None)[:4]
    sizes, strides = _plain(sizes), _plain(strides)
    is_storage = given is not None or isinstance(storage, Persistent)
    if not (is_storage and _is_size(offset) and _are_sizes(sizes) and _are_sizes(strides)):
        raise damaged(path, "a tensor has no proper storage, offset, sizes and strides")
    if len(sizes) != len(strides):
        raise damaged(path, f"a tensor of {len(sizes)} dimensions has {len(strides)} strides")
    declared = _storage(path, storage) if given is None else given
    view = storage.identifier[5:] if given is None else ()
    start, room = view[0][1:] if view and view[0] is not None else (0, declared.elements)
    dtype = declared.dtype
    if dtype_at is not None:
        named = arguments[dtype_at] if len(arguments) > dtype_at else None
        dtype = named.name if isinstance(named, Global) else ""
        room = room * ITEM_BYTES[declared.dtype] // ITEM_BYTES.get(dtype, 1)
    elements, last = 1, offset
    for size, stride in zip(sizes, strides, strict=True):
        elements, last = elements * size, last + (size - 1) * stride
    if elements == 0:
        if max(sizes) > 2**24:
            raise damaged(path, f"a tensor has no elements but a dimension of {max(sizes)}")
    elif last >= room:
        raise damaged(path, f"a tensor of shape {quoted(sizes)} does not fit its storage of {room} elements")
    elif elements > max(room, MAX_REPEATED):
        # Only strides of zero reach this: an expanded tensor, which any copy would unfold.
        raise damaged(path, f"a tensor of shape {quoted(sizes)} repeats a storage of {room} elements")
    return Layout(declared, dtype, start + offset, sizes, strides)


def _plain(sizes: Any) -> Any:
    """Sizes are a tuple, or torch.Size called with one."""
    if isinstance(sizes, Call) and str(sizes.function) == "torch.Size" and sizes.arguments:
        return tuple(sizes.arguments[0]) if isinstance(sizes.arguments[0], list | tuple) else None
    return sizes


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= 64 and all(map(_is_size, values))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def torch_says(error: Exception) -> str:
    """Why torch cannot read a file, without its advice to read it unsafely and without places in its source."""
    if isinstance(error, pickle.UnpicklingError):
        return "its safe reader does not take the pickle"
    return re.sub(r"^\[enforce fail at [^\]]*\][ .]*", "", reason(error))


def damaged(path: Path, why: str) -> CheckpointError:
    """The sentence for a file whose numbers cannot be."""
    return CheckpointError(f"{quoted(path)} is a damaged PyTorch checkpoint", why, "download or copy it again")

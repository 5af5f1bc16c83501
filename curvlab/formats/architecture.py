"""`--architecture package.module:callable`: the user's own code makes the network, the file fills it, both must agree.

A weight that the file does not have would keep its random start, and every curvature computed from it would be
meaningless: so the two lists of names must match, and any difference is shown.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from curvlab.errors import CheckpointError
from curvlab.quoting import listed, quoted, reason

Architecture = str | Callable[[], nn.Module]


def build_architecture(architecture: Architecture) -> nn.Module:
    """The network that `"package.module:callable"` (or the callable itself) returns, called without arguments.

    The working directory is importable meanwhile, as it is for `python -m`; torch's random state is left as it was.

    Raises:
        CheckpointError: which step failed: the form, the import, the name, the call, or what it returned.
    """
    with _working_directory_importable(), torch.random.fork_rng(devices=[]):
        build = _imported(architecture) if isinstance(architecture, str) else architecture
        what = quoted(describe_architecture(architecture))
        try:
            module = build()
        except (Exception, SystemExit) as error:
            why = f"calling it without arguments raised {type(error).__name__}: {reason(error)}"
            raise CheckpointError(f"the architecture {what} makes no network", why, "mend it and try again") from error
    if not isinstance(cast(object, module), nn.Module):
        why = f"it returned {quoted(type(module).__name__)}, not a torch.nn.Module"
        raise CheckpointError(f"the architecture {what} makes no network", why, "name a callable that returns a module")
    return module


def describe_architecture(architecture: Architecture) -> str:
    """`"package.module:callable"` of a callable; a text describes itself."""
    if isinstance(architecture, str):
        return architecture
    name = getattr(architecture, "__qualname__", type(architecture).__qualname__)
    return f"{getattr(architecture, '__module__', '?')}:{name}"


def load_weights(path: Path, module: nn.Module, tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> nn.Module:
    """`module` in eval mode with the weights of the file, every one accounted for.

    Names may differ by a prefix (`"model."`) on either side. Counters of batch norms, which old files do not have, and
    second names of tied weights may be absent; nothing else may, on either side.

    Raises:
        CheckpointError: names or shapes that do not match, listed.
    """
    stored = {name: name for name in tensors} | dict(aliases)
    expected = {name: value for name, value in module.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    names = _aligned(expected.keys(), stored.keys())
    missing = [name for name in expected if name not in names]
    tied = _tied_names(expected)
    missing = [name for name in missing if not name.endswith("num_batches_tracked") and not tied[name] & names.keys()]
    unexpected = stored.keys() - names.values()
    weights = {name: tensors[stored[source]] for name, source in names.items()}
    wrong = [
        f"{name} is {tuple(weights[name].shape)} in the file and {tuple(expected[name].shape)} in the network"
        for name in weights
        if weights[name].shape != expected[name].shape
    ]
    if missing or unexpected or wrong:
        parts = [f"{label} {listed(found)}" for label, found in (("missing", missing), ("wrong shape", wrong)) if found]
        parts += [f"not in the network {listed(name for name in stored if name in unexpected)}"] if unexpected else []
        raise CheckpointError(
            f"{quoted(path)} does not fit the network",
            ", ".join(parts),
            "give the architecture the file was saved from",
        )
    try:
        module.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{quoted(path)} does not fit the network", reason(error)) from error
    return module.eval()


def _aligned(expected: Collection[str], stored: Collection[str]) -> dict[str, str]:
    """Name in the network -> name in the file, under the prefix on either side that makes most names meet."""
    candidates = [{name: name for name in expected if name in stored}]
    for prefix in _shared_prefixes(stored):
        candidates.append({name: prefix + name for name in expected if prefix + name in stored})
    for prefix in _shared_prefixes(expected):
        shorter = {name: name.removeprefix(prefix) for name in expected}
        candidates.append({name: short for name, short in shorter.items() if short in stored})
    return max(candidates, key=len)


def _shared_prefixes(names: Collection[str]) -> list[str]:
    """`["model.", "model.net."]` when all names begin so."""
    first, last = min(names, default=""), max(names, default="")  # what these two share, all names share
    ends = (index + 1 for index, letter in enumerate(first) if letter == ".")
    return [first[:end] for end in ends if last.startswith(first[:end])]


def _tied_names(expected: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """name -> all names of the same parameter."""
    by_identity: dict[int, set[str]] = {}
    for name, tensor in expected.items():
        by_identity.setdefault(id(tensor), set()).add(name)
    return {name: by_identity[id(tensor)] for name, tensor in expected.items()}


def _imported(spec: str) -> Callable[[], nn.Module]:
    def refused(why: str, do: str) -> CheckpointError:
        return CheckpointError(f"the architecture {quoted(spec)} cannot be used", why, do)

    module_name, colon, attribute = spec.partition(":")
    is_file = module_name.endswith(".py")
    if is_file or not colon or not all(p.isidentifier() for p in (*module_name.split("."), *attribute.split("."))):
        hint = f", such as {Path(module_name).stem}:{attribute or 'build'}" if is_file else ""
        raise refused("it does not have the form package.module:callable", f"write it so{hint}")
    try:
        found = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise refused(
                f"there is no module {quoted(error.name)} on the path or in the current directory",
                "run it from the folder of that module, or install it",
            ) from error
        raise refused(f"importing it raised {type(error).__name__}: {reason(error)}", "mend the module") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            close = difflib.get_close_matches(name, dir(found), n=1)
            known = f"did you mean {quoted(close[0])}?" if close else "check the name after the colon"
            raise refused(f"{quoted(module_name)} has no {quoted(name)}", known)
        found = getattr(found, name)
    if not callable(found):
        raise refused(
            f"{quoted(attribute)} is {type(found).__name__}, which cannot be called", "name a function or class"
        )
    build: Callable[[], nn.Module] = found
    return build


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)

"""A network made by another library from numbers in an untrusted file, within bounds on its modules and parameters.

A configuration of one line can ask for a billion layers or a petabyte of weights. torch tells of every module and
parameter that is registered, so both are counted while the network is made, and too many end it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from curvlab.errors import CheckpointError

MODULES_PER_TENSOR, FREE_MODULES = 20, 1000
"""A layer of a transformer has about as many modules as tensors; containers and activations have none."""
# A quarter of the bytes when stored in eight bits, and something for parameters that are not stored (tied ones).
MOST_TIMES_STORED = 4
FREE_BYTES = 2**26


@contextmanager
def bounded_construction(tensors: int, stored_bytes: int, max_memory: int | None) -> Iterator[None]:
    """Inside, a network may be made of so many modules and bytes of parameters as the file's tensors can explain.

    Args:
        tensors: how many the file has; there may be twenty times as many modules, and a thousand.
        stored_bytes: of the tensors in the file; parameters may take four times as many, and 64 MiB.
        max_memory: a lower limit, if any.

    Raises:
        CheckpointError: there are more.
    """
    allowed = MOST_TIMES_STORED * stored_bytes + FREE_BYTES
    allowed = allowed if max_memory is None else min(allowed, max_memory)
    most = MODULES_PER_TENSOR * tensors + FREE_MODULES
    modules, held, seen = 0, 0, set()

    def count_module(*_: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > most:
            found = f"the configuration asks for more than {most} modules"
            raise CheckpointError(found, f"the file holds {tensors} tensors")

    def count_parameter(_: nn.Module, __: str, parameter: Tensor | None) -> None:
        nonlocal held
        if parameter is None or id(parameter) in seen:
            return
        seen.add(id(parameter))
        held += parameter.numel() * parameter.element_size()
        if held > allowed:
            why = f"the file holds {stored_bytes} bytes and {allowed} are allowed"
            raise CheckpointError("the configuration asks for more weights than the file can fill", why)

    handles = (
        register_module_module_registration_hook(count_module),
        register_module_parameter_registration_hook(count_parameter),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""A device that is not the CPU, on every machine: `install()` registers it with torch under the name "foreign".

Its tensors hold their numbers in a tensor of the CPU and compute there, but torch takes them for a device's: operations
of tensors from both are refused, as is numpy, and what is made without a device is on the CPU. It shows, without a
GPU, where code mixes devices. It does not show what depends on a GPU's own kernels, its generators or its speed.

What it stands on is torch's way of writing a device in Python, which is not yet stable: it is for tests only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo  # it looks at `torch.Generator` when it is imported, which should be torch's own
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

NAME = "foreign"
_BOTH = frozenset({"aten::copy_", "aten::_copy_from"})
# Indices may be on the CPU, as on a GPU.
_INDEXING = frozenset({"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"})
_CPU_GENERATOR = torch.Generator
_LIBRARY = torch.library.Library("_", "IMPL")  # what it registers lives as long as it does


class ForeignTensor(Tensor):
    """A tensor of the device; `raw` has its numbers."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> ForeignTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, *args, **(kwargs or {}))

    def tolist(self) -> Any:
        return self.raw.tolist()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device="cpu").to(NAME)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = ForeignTensor(self.raw.clone())
        copied._is_param = getattr(self, "_is_param", False)
        memo[id(self)] = copied
        return copied.requires_grad_(self.requires_grad)


class ForeignGenerator(torch.Generator):
    """A generator of any device; those of the device are the CPU's."""

    def __new__(cls, device: Any = "cpu") -> ForeignGenerator:
        plain = torch.device(device).type in ("cpu", NAME)
        return _CPU_GENERATOR.__new__(cls, "cpu" if plain else device)


class _Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def install() -> None:
    """Register the device, once in a process; networks keep their tied parameters when they are moved to it."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    _LIBRARY.fallback(_run, "PrivateUse1")
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.Generator = ForeignGenerator
    for name in ("arange", "eye", "linspace", "tensor"):
        setattr(torch, name, _made_on_the_cpu(getattr(torch, name)))


def _made_on_the_cpu(maker: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The maker of tensors, for those that a wrapper cannot follow since they resize or fill what they have made."""

    def make(*args: Any, device: Any = None, requires_grad: bool = False, **kwargs: Any) -> Tensor:
        made = maker(*args, device="cpu", **kwargs)
        return made.to(torch.empty(0).device if device is None else device).requires_grad_(requires_grad)

    return make


def _run(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """The operation on the CPU, its tensors wrapped; what it writes to is returned as it came."""
    flat, spec = tree_flatten((args, kwargs))
    _refuse_mixtures(operation, [x for x in flat if isinstance(x, Tensor)])
    raw_args, raw_kwargs = tree_unflatten([x.raw if isinstance(x, ForeignTensor) else x for x in flat], spec)
    leaves = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"
    if kwargs.get("device") is not None:
        raw_kwargs["device"] = "cpu"
    if operation._schema.name == "aten::_efficientzerotensor":  # zeros of no memory, which forward mode makes
        operation = torch.ops.aten.zeros.default
    found = operation(*raw_args, **raw_kwargs)
    written = {
        name: value
        for argument, value in zip(operation._schema.arguments, [*args, *kwargs.values()], strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
        for name in argument.alias_info.before_set
    } | {
        name: kwargs[argument.name]
        for argument in operation._schema.arguments
        if argument.name in kwargs and argument.alias_info is not None and argument.alias_info.is_write
        for name in argument.alias_info.before_set
    }
    wrap: Callable[[Any], Any] = lambda x: ForeignTensor(x) if isinstance(x, Tensor) and not leaves else x  # noqa: E731
    returns = operation._schema.returns
    if len(returns) == 1:
        return _output(found, returns[0], written, wrap)
    if isinstance(found, tuple):
        return tuple(_output(x, one, written, wrap) for x, one in zip(found, returns, strict=True))
    return found


def _output(found: Any, described: Any, written: dict[str, Any], wrap: Callable[[Any], Any]) -> Any:
    if described.alias_info is not None and described.alias_info.is_write:
        for name in described.alias_info.before_set:
            if name in written:
                return written[name]
    return tree_map(wrap, found)


def _refuse_mixtures(operation: Any, tensors: list[Tensor]) -> None:
    name = operation._schema.name
    inside = [x for x in tensors if isinstance(x, ForeignTensor)]
    outside = [x for x in tensors if not isinstance(x, ForeignTensor) and x.dim()]
    if inside and outside and name not in _BOTH | _INDEXING:
        raise RuntimeError(f"{name}: expected all tensors on one device, found {NAME} and cpu")

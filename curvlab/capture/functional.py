"""Parameters used outside a layer module: `x + self.bias`, `x * self.scale`, `F.linear(h, self.embedding.weight)`
become layers too.

A parameter that is used by an operation no adapter knows must not be counted wrongly: it is reported by name instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from curvlab.layers.elementwise import Elementwise
from curvlab.layers.layer import Layer
from curvlab.layers.linear import LinearLayer, TransposedLinearLayer

Use = tuple[str, Layer, Tensor]
"""Name of the parameter, the layer it forms there, and the layer's input."""

Watcher = Callable[[Use, Tensor], Any]
"""`y = watch(use, y)`: called for each use; returns the output to go on with."""


class Bare(Elementwise):
    """s = p ⊙ f, broadcast: a parameter multiplied (f = the other operand) or added (f = 1) by hand; one group per
    entry of p."""

    def __init__(self, kind: str, parameter: Tensor) -> None:
        super().__init__(kind, parameter, None, axis=0)

    def _channels(self, x: Tensor) -> Tensor:
        parameter = self.parameters["weight"].shape
        shape = (1,) * (x.ndim - len(parameter)) + tuple(parameter)
        channel = [axis for axis in range(1, x.ndim) if shape[axis] > 1]
        position = [axis for axis in range(1, x.ndim) if shape[axis] == 1]
        return x.permute(0, *position, *channel).reshape(x.shape[0], -1, self.groups)

    def fits(self, output: Tensor) -> bool:
        """Whether the parameter was broadcast over the examples axis of `output`, so that per-example gradients
        exist."""
        parameter = self.parameters["weight"].shape
        if output.ndim == 0 or output.ndim < len(parameter):
            return False
        shape = (1,) * (output.ndim - len(parameter)) + tuple(parameter)
        return shape[0] == 1 and all(p in (1, o) for p, o in zip(shape, output.shape, strict=True))


_ADD = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, Tensor.add_}
_SUBTRACT = {torch.sub, Tensor.sub, Tensor.__sub__, torch.subtract}
_MULTIPLY = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply, Tensor.__imul__, Tensor.mul_}
_EXPAND = {Tensor.expand, Tensor.expand_as, Tensor.repeat, torch.broadcast_to, Tensor.broadcast_to}
_MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm}
_LOOKS = {"grad", "requires_grad_", "detach"}  # return a tensor, use nothing


class FunctionalUses(TorchFunctionMode):
    """Watches torch calls for the model's own parameters while no adapted module is running.

    Args:
        names: id of a parameter -> its name in the model.
        layers: layers found so far, by (operation, parameter ids); shared between batches so that a use keeps its
            layer.
        watch: gets each recognised use and its output.
        refuse: gets (parameter name, operation name) of each use that no adapter knows.
    """

    def __init__(
        self, names: Mapping[int, str], layers: dict[Any, Layer], watch: Watcher, refuse: Callable[[str, str], None]
    ) -> None:
        super().__init__()
        self.names, self.layers, self.watch, self.refuse = names, layers, watch, refuse
        self.inside = 0  # depth of adapted modules: what happens in there is theirs

    def enter(self, *_: Any) -> None:
        """Hook before an adapted module runs."""
        self.inside += 1

    def leave(self, *_: Any) -> None:
        """Hook after an adapted module has run."""
        self.inside -= 1

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func`; if it uses a watched parameter, tell what it did."""
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        own = [a for a in (*args, *kwargs.values()) if isinstance(a, nn.Parameter) and id(a) in self.names]
        own += [a for part in args if isinstance(part, list | tuple) for a in part if id(a) in self.names]
        if not own:
            return func(*args, **kwargs)
        found = self._recognise(func, args, kwargs, own)
        output = func(*args, **kwargs)
        if found is not None and isinstance(output, Tensor):
            layer, x = found
            if not isinstance(layer, Bare):
                return self.watch((self.names[id(own[0])], layer, x), output)
            if layer.fits(output):
                return self.watch((self.names[id(own[0])], layer, torch.broadcast_to(x, output.shape)), output)
        name = _operation(func)
        parts = output if isinstance(output, tuple | list) else (output,)
        if name not in _LOOKS and any(isinstance(part, Tensor) for part in parts):
            for parameter in own:
                self.refuse(self.names[id(parameter)], name)
        return output

    def _recognise(self, func: Any, args: Any, kwargs: Any, own: list[Any]) -> tuple[Layer, Tensor] | None:
        p = own[0]
        if func is F.linear:
            x, weight, bias = _bind(("input", "weight", "bias"), args, kwargs)
            if weight is p and (bias is None or isinstance(bias, nn.Parameter)):
                return self._layer("linear", LinearLayer, weight, bias), x
        elif func in _MATMUL and len(args) == 2 and args[1] is p and len(own) == 1 and p.ndim == 2:
            return self._layer("matmul", TransposedLinearLayer, p, None), args[0]
        elif func in _EXPAND and args[0] is p:
            return self._layer("bias", Bare, p), p.new_ones(())
        elif len(args) == 2 and len(own) == 1 and not kwargs:
            other = args[1] if args[0] is p else args[0]
            if func in _ADD or (func in _SUBTRACT and args[0] is p):
                return self._layer("bias", Bare, p), p.new_ones(())
            if func in _SUBTRACT:
                return self._layer("bias", Bare, p), -p.new_ones(())
            if func in _MULTIPLY:
                return self._layer("scale", Bare, p), torch.as_tensor(other, dtype=p.dtype, device=p.device).detach()
        return None

    def _layer(self, operation: str, make: Any, *parameters: Tensor | None) -> Layer:
        key = (operation, *map(id, parameters))
        if key not in self.layers:
            first = (f"Parameter ({operation})",) if make is Bare else ()
            self.layers[key] = make(*first, *parameters)
        return self.layers[key]


def _operation(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name


def _bind(names: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]

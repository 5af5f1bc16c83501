"""Expression: a tensor θ = f(P) that a network computes from its parameters alone, such as `weight.t()` or one part of
a fused weight.

An operation that uses θ is an affine map of θ. Where f is linear too it is one of P, with f's transpose taking
gradients of θ to those of P; where f is not (the exponential of a state-space model), there are only the
gradients of every example.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from curvlab.layers.call_arguments import leaves, replaced
from curvlab.layers.form import FORMS, Form, form_of


class Expression:
    """θ = f(P).

    Args:
        value: θ.
        function: the operation that computed it; None for a parameter.
        arguments: of the operation, with expressions in place of tensors that are ones.
        keywords: likewise.
        pick: which of the operation's outputs it is, None where there is one.
        name: the operation's.

    Attributes:
        parameters: name -> the parameters P, in the order they come in.
        form: what f is.
        key: what tells this expression from others of the same parameters; constants in it are told by their shapes.
        place: the entry of the parameter's first axis that it is, where it is one.
        fixed: whether `key` says everything, so that f is the same in the next batch.
    """

    form: Form
    parameters: dict[str, Tensor]
    keywords: Mapping[str, Any]
    place: int | None

    def __init__(
        self,
        value: Tensor,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: Mapping[str, Any],
        pick: int | None,
        name: str,
    ) -> None:
        self.value, self.function, self.arguments, self.keywords = value, function, arguments, dict(keywords)
        self.pick, self.name = pick, name
        operands = list(inside((arguments, keywords)))
        self.parameters = {}
        for operand in operands:
            self.parameters.update(operand.parameters)
        step = form_of(name, arguments, keywords, operands)
        self.form = Form.OTHER if step is Form.OTHER else max(step, *(one.form for one in operands))
        if step is Form.LINEAR and any(one.form is Form.AFFINE for one in operands):
            self.form = Form.AFFINE
        place = _place(name, arguments, pick)
        whole = len(operands) == 1 and _keeps_first_axis(operands[0])
        self.place = place if whole else operands[0].place if step is Form.REARRANGED else None
        known = [_told(a) for a in leaves((arguments, keywords))]
        self.key: tuple[Hashable, ...] = (name, pick, *(told for told, _ in known))
        self.fixed = all(same for _, same in known)

    def lean(self) -> Expression:
        """The same f, without the numbers of θ: for a layer that lives longer than a batch."""
        found = copy.copy(self)
        found.value = self.value.to("meta")
        found.arguments, found.keywords = replaced(
            (self.arguments, self.keywords), lambda one: one.lean() if isinstance(one, Expression) else one
        )
        return found

    def linear(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The linear part of f at tensors of the parameters' shapes, by their names."""
        found = self._at(tensors)
        if self.form is not Form.AFFINE:
            return found
        return found - self._at({name: torch.zeros_like(p) for name, p in tensors.items()})

    def adjoint(self, tensor: Tensor) -> dict[str, Tensor]:
        """(∂f/∂P)ᵀ g for gradients g `[..., *θ]` with any leading axes, by the parameters' names."""
        names = list(self.parameters)

        def run(*values: Tensor) -> Tensor:
            return self._at(dict(zip(names, values, strict=True)))

        points = [self.parameters[name].detach().to(tensor.dtype) for name in names]
        pull = torch.func.vjp(run, *points)[1]
        flat = tensor.reshape(-1, *self.value.shape)
        pulled = torch.vmap(pull)(flat)
        lead = tensor.shape[: tensor.ndim - self.value.ndim]
        return {name: part.reshape(*lead, *part.shape[1:]) for name, part in zip(names, pulled, strict=True)}

    def _at(self, tensors: Mapping[str, Tensor]) -> Tensor:
        def place(part: Any) -> Any:
            return part._at(tensors) if isinstance(part, Expression) else part

        dtype = next(iter(tensors.values())).dtype
        arguments, keywords = replaced((self.arguments, self.keywords), place)
        found = self.function(*_of_type(arguments, dtype), **_of_type(keywords, dtype))
        tensor: Tensor = found if self.pick is None else found[self.pick]
        return tensor

    @property
    def why(self) -> str:
        """Which operation f is not linear for."""
        below = next((one for one in inside((self.arguments, self.keywords)) if one.form is Form.OTHER), None)
        return f"the operation '{self.name}' is not linear in it" if below is None else below.why

    @property
    def taken(self) -> str:
        """What is taken of the parameter, to be put after its name: "" for all of it."""
        if self.form in (Form.PARAMETER, Form.REARRANGED):
            return ""
        inner = next((one.taken for one in inside(self.arguments)), "")
        if FORMS.get(self.name) is not Form.PART:
            return inner
        if self.pick is not None:
            return f"{inner}[{self.name} {self.pick}]"
        shown = ", ".join(_shown(one) for one in leaves(self.arguments[1:]))
        return f"{inner}[{shown}]" if self.name == "__getitem__" else f"{inner}[{self.name} {shown}]"


class ParameterExpression(Expression):
    """P itself."""

    def __init__(self, name: str, parameter: Tensor) -> None:
        self.value, self.parameters, self.form = parameter, {name: parameter}, Form.PARAMETER
        self.key, self.place, self.fixed, self.name = (name,), None, True, name
        self.arguments, self.keywords, self.pick = (), {}, None

    def lean(self) -> Expression:
        """Itself."""
        return self

    def _at(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors[self.name]


def apply(function: Callable[..., Any], name: str, operand: Expression, *arguments: Any) -> Expression:
    """The expression of one more operation, which has not been run yet: `apply(Tensor.select, "select", w, 0, 3)`."""
    value = function(operand.value.detach(), *arguments)
    return Expression(value, function, (operand, *arguments), {}, None, name)


def inside(part: Any) -> Iterator[Expression]:
    """The expressions among arguments; those in lists too."""
    if isinstance(part, Expression):
        yield part
    elif isinstance(part, tuple | list):
        for one in part:
            yield from inside(one)
    elif isinstance(part, Mapping):
        for one in part.values():
            yield from inside(one)


def _of_type(part: Any, dtype: torch.dtype) -> Any:
    """Constants in the type that f is evaluated in."""
    return replaced(part, lambda one: one.to(dtype) if isinstance(one, Tensor) and one.is_floating_point() else one)


def _shown(argument: Any) -> str:
    """An index as Python writes it; of a tensor that there is one."""
    if isinstance(argument, slice):
        start, stop = ("" if end is None else str(end) for end in (argument.start, argument.stop))
        return f"{start}:{stop}" if argument.step in (None, 1) else f"{start}:{stop}:{argument.step}"
    if isinstance(argument, Tensor):
        return str(int(argument)) if argument.ndim == 0 else "index"
    return "..." if argument is Ellipsis else str(argument)


def _told(argument: Any) -> tuple[Hashable, bool]:
    """What an argument is told by, and whether that is all of it."""
    if isinstance(argument, Expression):
        return argument.key, argument.fixed
    if isinstance(argument, Tensor):
        if argument.ndim == 0 and not argument.is_floating_point():
            return int(argument), True
        return ("tensor", tuple(argument.shape), _fingerprint(argument)), False
    if isinstance(argument, slice):
        return ("slice", str(argument)), True
    return (argument, True) if isinstance(argument, Hashable) else (str(argument), True)


def _fingerprint(constant: Tensor) -> int:
    """What tells small constants of one shape apart: two orders of the rows of one weight are two maps."""
    if constant.is_floating_point() or constant.is_complex() or constant.numel() > 2**16:
        return 0
    return hash(constant.detach().cpu().contiguous().view(-1).numpy().tobytes())


def _place(name: str, arguments: tuple[Any, ...], pick: int | None) -> int | None:
    """Which entry of the first axis an operation takes, where it takes one."""
    found: Any = None
    if name == "__getitem__":
        found = arguments[1]
    elif name == "select" and arguments[1] == 0:
        found = arguments[2]
    elif name == "unbind" and (len(arguments) == 1 or arguments[1] == 0):
        found = pick
    if isinstance(found, Tensor) and found.ndim == 0 and not found.is_floating_point() and found.dtype != torch.bool:
        found = int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def _keeps_first_axis(one: Expression) -> bool:
    """Whether an expression has the entries of one parameter along its first axis."""
    if one.form is Form.PARAMETER:
        return True
    (first, *others) = one.parameters.values()
    same = not others and one.form is Form.REARRANGED and one.value.ndim and first.ndim
    return bool(same) and one.value.shape[0] == first.shape[0] and one.value.stride(0) == first.stride(0)

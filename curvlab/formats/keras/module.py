"""KerasModule: a Keras model on the torch backend as an nn.Module whose parts and parameters have plain dotted names.

Keras' layers are nn.Modules, but a model shows torch a single dictionary of all its variables, so that no layer of it
could be found. Here every layer is a submodule under its own name, and holds its variables under theirs:
`dense.kernel`, `bidirectional.forward_lstm.lstm_cell.bias`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


class KerasModule(nn.Module):
    """The model, called as torch calls networks: several inputs are several arguments, train() means training=True.

    The model is taken over: afterwards it is changed only through this module.

    Args:
        model: a built `keras.Model`, on the torch backend.
    """

    model: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        object.__setattr__(self, "model", model)  # not as a submodule: its layers are
        _rehang(model, set())
        self._modules.update(model._modules)
        self._parameters.update(model._parameters)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model computes.

        Args:
            args: its inputs, in the order of `model.inputs`.
            kwargs: its inputs by name.
        """
        inputs = kwargs or (args[0] if len(args) == 1 else list(args))
        return self.model(inputs, training=self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasModule:
        # Keras copies its objects by saving and loading them, which forgets types and devices.
        model = type(self.model).from_config(self.model.get_config())
        for mine, own in zip(model.variables, self.model.variables, strict=True):
            mine.value.data = own.value.data.clone()
            mine.value.requires_grad_(own.value.requires_grad)
        copied = KerasModule(model).train(self.training)
        memo[id(self)] = copied
        return copied


def plain_name(name: str) -> str:
    """A layer's name without the dots and slashes that would make it a path."""
    return name.replace(".", "_").replace("/", "_") or "layer"


def _rehang(layer: Any, seen: set[int]) -> None:
    """Give a layer, and the layers within it, torch's way of holding parts."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    for name, part in layer._modules.items():
        if name != "_torch_params":
            vars(layer).setdefault(name, part)  # the attribute `lstm.cell` stays, whatever the part is called below
    layer._modules.clear()
    layer._parameters.clear()
    # What Keras looks for before it files all variables of a model under one name again.
    vars(layer)["_torch_params"] = {}
    for name, value, trained in _variables(layer):
        (layer._parameters if trained else layer._buffers)[_free(name, layer)] = value
    for inner in _inner_layers(layer):
        _rehang(inner, seen)
        if type(inner).__name__ != "InputLayer":
            layer._modules[_free(plain_name(inner.name), layer)] = inner


def _variables(layer: Any) -> Iterator[tuple[str, Tensor, bool]]:
    """Name, tensor and whether it is trained, of the layer's own variables; the state of random generators is none."""
    for variable in layer._trainable_variables:
        yield plain_name(variable.name), variable.value, True
    for variable in layer._non_trainable_variables:
        if variable.value.is_floating_point():
            yield plain_name(variable.name), variable.value, False


def _inner_layers(layer: Any) -> list[Any]:
    return [
        inner for inner in layer._flatten_layers(include_self=False, recursive=False) if isinstance(inner, nn.Module)
    ]


def _free(name: str, layer: Any) -> str:
    """The name, or with a number where the layer has one of that name already."""
    taken = {*layer._modules, *layer._parameters, *layer._buffers}
    return (
        name
        if name not in taken
        else next(free for i in range(1, len(taken) + 2) if (free := f"{name}_{i}") not in taken)
    )

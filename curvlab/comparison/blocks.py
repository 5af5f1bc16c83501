"""What a comparison calls a layer: the parameters that belong together, in the model's order."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import nn

from curvlab.capture.survey import Survey
from curvlab.errors import CommandError

Layers = dict[str, tuple[str, ...]]
"""Layer -> names of its trainable parameters."""


def layers_of(model: nn.Module, found: Survey | None, globs: Sequence[str] = ()) -> Layers:
    """The blocks that the network is made of; parameters of no block are together under the module that has them.

    A parameter that several blocks share is in the first of them.

    Raises:
        CommandError: no layer has a name like `globs`.
    """
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    home = {
        name: block.name
        for block in reversed([] if found is None else list(found.blocks.values()))
        for name in block.parameters.values()
    }
    layers: dict[str, list[str]] = {}
    for name in trainable:
        layers.setdefault(home.get(name, name.rpartition(".")[0] or name), []).append(name)
    chosen = {
        layer: tuple(names)
        for layer, names in layers.items()
        if not globs or any(fnmatch.fnmatchcase(layer, glob) for glob in globs)
    }
    if not chosen:
        raise CommandError(f"no layer is called {' or '.join(globs)}", f"there are {', '.join(layers)}")
    return chosen

"""Convention: what a network is trained to say of its inputs, where the kind of network alone tells.

A causal language model says the next token, a masked one the tokens at the places themselves, an encoder–decoder the
next token of its target. The classes of transformers are told by its own mapping of tasks to classes.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Convention = Literal["next token", "same token", "target sequence", "alignment", "features"]
"""What the outputs at a position speak of: the next input token, the token at this position, the next token of a target
sequence that a decoder is given, (CTC) nothing at one position alone, or nothing yet: features without a head."""

_TASKS: tuple[tuple[Convention, tuple[str, ...]], ...] = (
    ("target sequence", ("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ")),
    ("alignment", ("CTC",)),
    ("same token", ("MASKED_LM", "TOKEN_CLASSIFICATION")),
    ("next token", ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT")),
)
_ENDINGS: tuple[tuple[str, Convention], ...] = (
    ("ForCausalLM", "next token"),
    ("LMHeadModel", "next token"),
    ("ForMaskedLM", "same token"),
    ("ForTokenClassification", "same token"),
    ("ForCTC", "alignment"),
    ("ForConditionalGeneration", "next token"),
)


def convention_of(module: nn.Module) -> Convention | None:
    """The convention of the first of the network's classes that has one; None where nothing tells."""
    names = [kind.__name__ for kind in type(module).__mro__]
    known = _known_classes() if is_of_transformers(module) else {}
    found = next((known[name] for name in names if name in known), None)
    if found is None:
        found = next((task for name in names for ending, task in _ENDINGS if name.endswith(ending)), None)
    if found in ("next token", "same token", "target sequence") and hasattr(module, "config"):
        # One class may be listed for several tasks; whether there is a decoder is the network's own setting.
        if takes_decoder_inputs(module):
            return "target sequence"
        return "next token" if found == "target sequence" else found
    if found is None and is_of_transformers(module) and type(module).__name__.endswith("Model"):
        return "features"
    return found


def is_of_transformers(module: nn.Module) -> bool:
    """Whether the network's class is one of transformers', or made of one."""
    return any(kind.__module__.startswith("transformers.") for kind in type(module).__mro__)


def takes_decoder_inputs(module: nn.Module) -> bool:
    """Whether the network is an encoder and a decoder, and its decoder's tokens are an input."""
    config: Any = getattr(module, "config", None)
    return bool(getattr(config, "is_encoder_decoder", False)) and "decoder_input_ids" in keywords_of(module)


def keywords_of(module: nn.Module) -> set[str]:
    """Names that the network takes inputs by: of an imported graph its own, else its forward's."""
    graph = {value.name for value in getattr(module, "inputs", ()) if hasattr(value, "name")}
    return graph or set(inspect.signature(module.forward).parameters)


@cache
def _known_classes() -> dict[str, Convention]:
    """Name of a class -> its convention, by transformers' own lists."""
    if "transformers" not in sys.modules:
        return {}
    lists = importlib.import_module("transformers.models.auto.modeling_auto")
    found: dict[str, Convention] = {}
    for convention, tasks in _TASKS:
        for task in tasks:
            for names in getattr(lists, f"MODEL_FOR_{task}_MAPPING_NAMES", {}).values():
                for name in (names,) if isinstance(names, str) else names:
                    found.setdefault(name, convention)
    return found

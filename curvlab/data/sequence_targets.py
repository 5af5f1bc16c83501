"""SequenceTargets: inputs and targets of a network over sequences, as its kind of network takes them.

    next token        y[n,t] = x[n,t+1], none at the last position and where the next token is padding
    same token        y[n,t] = the label there; without labels none, and targets are drawn at every position
    features          none: real targets are drawn at every position
    target sequence   decoder input[n,0] = start, decoder input[n,t] = label[n,t−1]; y[n,t] = label[n,t]

Labels are given as transformers takes them: beside the tokens they are about, −100 where nothing counts.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from curvlab.data.convention import Convention, convention_of, is_of_transformers, keywords_of, takes_decoder_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    Batch = tuple[dict[str, Any], Tensor | None]

IGNORED = -100
"""A label that says: no loss here. The number of torch's `cross_entropy` and of the Hugging Face libraries."""


@dataclass(frozen=True)
class SequenceTargets:
    """What is done with every batch for one network.

    Attributes:
        module: the network.
        convention: what its outputs speak of.
    """

    module: nn.Module
    convention: Convention

    @classmethod
    def of(cls, module: nn.Module, loss: str) -> SequenceTargets | None:
        """By the kind of network, or by a loss "next-token" that the user gives; None where neither tells, or where
        the user's loss is about real numbers."""
        found = "next token" if loss == "next-token" else convention_of(module)
        return cls(module, found) if found is not None and loss in ("auto", "cross-entropy", "next-token") else None

    def checked(self, inputs: Mapping[str, Any], y: Tensor | None) -> SequenceTargets:
        """Itself; for "same token" where the network's own loss on these two examples says that it moves no labels.

        Some causal networks (the decoders of BART and of its relatives) are given labels that are moved already:
        without labels their targets are the next tokens all the same.
        """
        if self.convention != "next token" or "labels" not in keywords_of(self.module):
            return self
        first = {key: value[:2] if hasattr(value, "ndim") and value.ndim else value for key, value in inputs.items()}
        own = self._own_shift(first, _labels(first, None if y is None else y[:2]))
        if own != 0 or (y is None and self._is_causal(first)):
            return self
        return replace(self, convention="same token")

    def named(self, x: Any, y: Tensor | None) -> Batch:
        """Inputs by keyword and labels, as a program or a loader may give them: tokens alone, labels among the inputs.

        Empty where the inputs are none of these.
        """
        if isinstance(x, Mapping):
            inputs = {key: value for key, value in x.items() if value is not None}
            own = inputs.pop("labels", None) if y is None and is_of_transformers(self.module) else None
            return inputs, y if own is None else own
        return ({"input_ids": x}, y) if are_tokens(x) else ({}, y)

    def applied(self, x: Any, y: Tensor | None) -> tuple[Any, Tensor | None]:
        """Inputs and targets of one batch that a program or a loader gave."""
        inputs, labels = self.named(x, y)
        if not inputs:
            return x, y
        inputs, labels = self.batch(inputs, labels)
        return (inputs if isinstance(x, Mapping) or "input_ids" in keywords_of(self.module) else x), labels

    def batch(self, inputs: Mapping[str, Any], y: Tensor | None) -> Batch:
        """Keyword inputs and targets of one batch."""
        if y is not None and (y.is_floating_point() or y.ndim != 2):
            return dict(inputs), y
        if self.convention == "next token":
            labels = _labels(inputs, y)
            return dict(inputs), None if labels is None else moved_forward(labels)
        if self.convention == "target sequence":
            return self._with_decoder(dict(inputs), y)
        if self.convention == "features" and takes_decoder_inputs(self.module):
            return self._with_decoder(dict(inputs), None)[0], y
        return dict(inputs), y

    def sentence(self, y: Tensor | None) -> str:
        """What was done to make targets y, for the user."""
        name = type(self.module).__name__
        if self.convention == "features":
            given = "those that are given" if y is not None else "drawn"
            return f"targets: {given}; {name} has no head, and its outputs are features"
        if y is None and self.convention != "alignment":
            given = " after the decoder's start token" if self.convention == "target sequence" else ""
            return f"targets: drawn at each position{given}, as there are no labels for {name}"
        return {
            "next token": f"targets: the next token, as {name} is trained (labels moved by one position)",
            "same token": f"targets: the label of each position, as {name} is trained",
            "target sequence": f"targets: the next token of the target sequence, as {name} is trained",
            "alignment": f"{name} is trained on alignments (CTC)",
            "features": "",
        }[self.convention]

    def _with_decoder(self, inputs: dict[str, Any], y: Tensor | None) -> Batch:
        import torch

        given = inputs.get("decoder_input_ids")
        if given is not None:
            if y is None:
                y = moved_forward(_hidden(given, inputs.get("decoder_attention_mask")))
            return inputs, y
        labels = _labels(inputs, y)
        if labels is None:
            first = next(value for value in inputs.values() if isinstance(value, torch.Tensor))
            inputs["decoder_input_ids"] = torch.full((len(first), 1), self._start, device=first.device)
            return inputs, None
        mask = inputs.get("attention_mask")
        if mask is not None and labels.shape == mask.shape and not bool(mask.all()):
            # One place more, so that the encoder's mask is not taken for the decoder's.
            labels = torch.cat([labels, labels.new_full((len(labels), 1), IGNORED)], 1)
        inputs["decoder_input_ids"] = self._decoder_inputs(labels)
        counts = labels != IGNORED
        needed = counts.flip(1).cumsum(1).flip(1) > 0  # before the last label of its example
        needed[:, 0] = True
        if not bool(needed.all()) and "decoder_attention_mask" in keywords_of(self.module):
            inputs["decoder_attention_mask"] = needed.long()
        return inputs, labels

    def _decoder_inputs(self, labels: Tensor) -> Tensor:
        """As the family's own forward makes them of labels; else moved back by one behind the start token."""
        own: Any = getattr(self.module, "prepare_decoder_input_ids_from_labels", None)
        if callable(own):
            try:
                return own(labels=labels)  # type: ignore[no-any-return]
            except Exception:  # a configuration that lacks one of the tokens
                own = None
        pad = self._token("pad_token_id", 0)
        shift: Any = getattr(sys.modules.get(type(self.module).__module__), "shift_tokens_right", None)
        if callable(shift):
            wanted = len(inspect.signature(shift).parameters)
            return shift(*(labels, pad, self._start)[:wanted])  # type: ignore[no-any-return]
        moved = labels.roll(1, 1)
        moved[:, 0] = self._start
        return moved.masked_fill(moved == IGNORED, pad)

    @cached_property
    def _start(self) -> int:
        return self._token("decoder_start_token_id", self._token("bos_token_id", self._token("pad_token_id", 0)))

    def _token(self, name: str, otherwise: int) -> int:
        config: Any = getattr(self.module, "config", None)
        for one in (config, getattr(config, "decoder", None), getattr(config, "text_config", None)):
            if isinstance(found := getattr(one, name, None), int):
                return found
        return otherwise

    def _own_shift(self, inputs: dict[str, Any], labels: Tensor | None) -> int | None:
        """By how many positions the network's own loss moves labels: 1 or 0; None where neither gives its loss."""
        import torch

        from curvlab.capture.output import output_tensor

        if labels is None:
            return None
        try:
            made = self._answer({**inputs, "labels": labels})
            z, own = output_tensor(made), float(made.loss)
            means = [
                float(torch.nn.functional.cross_entropy(z.flatten(0, 1), y.flatten().to(z.device)))
                for y in (labels, moved_forward(labels))
            ]
        except Exception:  # the analysis will say what is wrong with the inputs
            return None
        near = [abs(mean - own) <= 1e-3 * abs(own) for mean in means]
        return near.index(True) if sum(near) == 1 else None

    def _is_causal(self, inputs: dict[str, Any]) -> bool:
        """Whether another last token leaves the outputs before it as they are."""
        import torch

        from curvlab.capture.output import output_tensor

        ids = inputs["input_ids"]
        changed = ids.clone()
        changed[:, -1] = ids[:, 0]
        if ids.shape[1] < 2 or torch.equal(ids, changed):
            return False
        try:
            before, after = (output_tensor(self._answer({**inputs, "input_ids": one})) for one in (ids, changed))
        except Exception:
            return False
        return torch.allclose(before[:, :-1], after[:, :-1], rtol=1e-4, atol=1e-6)

    def _answer(self, inputs: Mapping[str, Any]) -> Any:
        import torch

        from curvlab.formats.huggingface.network import quiet_and_offline

        device = next((p.device for p in self.module.parameters()), None)
        given = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        with torch.no_grad(), quiet_and_offline():
            return self.module(**given)


def are_tokens(x: Any) -> bool:
    """Whether x is a tensor of whole numbers (n, t)."""
    import torch

    return isinstance(x, torch.Tensor) and x.ndim == 2 and not x.is_floating_point() and x.dtype != torch.bool


def moved_forward(labels: Tensor) -> Tensor:
    """y[n,t] = label[n,t+1], −100 at the last position."""
    y = labels.roll(-1, 1)
    y[:, -1] = IGNORED
    return y


def _labels(inputs: Mapping[str, Any], y: Tensor | None) -> Tensor | None:
    """The labels that are given, or the tokens themselves."""
    ids = inputs.get("input_ids")
    return y if y is not None or ids is None else _hidden(ids, inputs.get("attention_mask"))


def _hidden(ids: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens as labels, −100 at padding."""
    return ids if mask is None or mask.shape != ids.shape else ids.masked_fill(mask == 0, IGNORED)

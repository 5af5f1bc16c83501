"""Recording: collects the calls and gradients of one batch and shows them to an observer as samples of blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import Observer
from curvlab.capture.first_look import FirstLook
from curvlab.capture.layer_block import Survey, components, use_key
from curvlab.capture.sample import Call, Sample
from curvlab.capture.tape import Tape
from curvlab.errors import CurvlabError
from curvlab.layers.layer import Layer, Unrolled
from curvlab.likelihoods.masked import position_mask


class Recording:
    """The calls and output gradients of one batch after another, by block.

    Args:
        model: the network.
        found: its blocks.
        dtype: of the products made from samples.
        output_gradients: whether the tape tells what blocks send back.
        wanted: names of the blocks to record.
        stream: show each block to the observer as soon as it has run, and release what is not needed any more; else
            everything is shown once the pass is over.
        hold_inputs: whether inputs are still needed in the backward pass.
        refuse: told (name, reason) of what could not be recorded.
        masked: whether padding is left out.

    Attributes:
        tape: the hooks.
    """

    def __init__(
        self,
        model: nn.Module,
        found: Survey,
        dtype: torch.dtype,
        *,
        output_gradients: bool,
        wanted: Collection[str],
        stream: bool,
        hold_inputs: bool,
        refuse: Callable[[str, str], object],
        masked: bool = True,
    ) -> None:
        self.model, self.found, self.dtype = model, found, dtype
        self.stream, self.hold_inputs, self.masked = stream, hold_inputs, masked
        self._group = {name: tuple(group) for group in components(found.blocks) for name in group}
        on_gradient = self._on_output_gradient if output_gradients else None
        modules, functional = _shown_by(found, wanted)
        self.tape = Tape(
            model, modules, self._on_call, on_gradient, refuse, found.axes, functional, FirstLook(found.look)
        )
        self._observer: Observer | None = None
        self._calls: dict[str, list[Call]] = {}
        self._mask: Tensor | None = None
        self._kept = 0
        self._waiting: dict[tuple[str, ...], int] = {}
        self._collecting, self._passed = False, 0

    def begin(self, observer: Observer | None) -> None:
        """A batch begins."""
        self._observer, self._calls, self._passed, self._mask = observer, {}, 0, None
        self._collecting = False

    def end(self) -> None:
        """The batch is over: let go of it."""
        self._calls, self._observer, self._mask = {}, None, None
        self.tape.release()

    def inputs(self) -> dict[str, Sample]:
        """The forward pass is over: the samples of all blocks; those not shown to the observer yet are."""
        samples = {name: self._sample(calls) for name, calls in self._calls.items()}
        if self._observer is not None:
            late = {n: s for n, s in samples.items() if not self.stream or self.found.blocks[n].calls != 1}
            if late:
                self._show_inputs(late)
        elif self.tape.on_output_gradient is None:
            for calls in self._calls.values():
                for call in calls:
                    call.check()
        return samples

    def open_pass(self, collecting: bool) -> None:
        """A backward pass begins; without `collecting` nothing of it is recorded."""
        self._collecting = collecting
        self.tape.begin_pass()
        if collecting:
            groups = set(self._group.values())
            self._waiting = {group: sum(len(self._calls.get(n, ())) for n in group) for group in groups}

    def close_pass(self, factor: Tensor | float = 1.0, keep: bool = False) -> dict[str, Sample]:
        """The backward pass is over: whatever has not been shown yet is.

        Args:
            factor: that the output gradients are multiplied with first; not with `stream`.
            keep: whether the samples are needed after the next pass has begun.

        Returns:
            The samples of the pass; none with `stream`.
        """
        self.tape.end_pass()
        collected, self._collecting = self._collecting, False
        shown: dict[str, Sample] = {}
        if collected and self.stream:
            # Some outputs had no influence on the loss: their gradients are zero, and there is nothing to add.
            for group in [group for group, count in self._waiting.items() if count > 0]:
                self._show_gradients(group)
        elif collected:
            for call in (call for calls in self._calls.values() for call in calls):
                if call.g is not None and not (isinstance(factor, int | float) and factor == 1):
                    call.g = call.g * factor
            shown = self._show_gradients(tuple(self._calls), keep)
        for calls in self._calls.values():
            for call in calls:
                call.g = None
        self._passed += 1
        return shown

    def full_precision(self) -> AbstractContextManager[Any]:
        """Whatever autocast the forward runs under, statistics keep the parameters' own type."""
        return torch.autocast(next(self.model.parameters()).device.type, enabled=False)

    def _on_call(self, use: str, call: Call) -> None:
        name = self._block(use, call)
        if name is None:
            self._refuse_new_use(use, call)
            return
        if self.masked and self._mask is None and (mask := position_mask(self.tape.kwargs)) is not None:
            self._mask, self._kept = mask, int(mask.sum())
        if (mask := _mask_of(call, self._mask)) is not None:
            call.mask, call.kept = mask, self._kept if call.places is None else int(mask.sum())
        self._calls.setdefault(name, []).append(call)
        # A block that runs many times (a recurrent cell) is worth waiting for: one product instead of one per call.
        if self.stream and self._observer is not None and self.found.blocks[name].calls == 1:
            self._show_inputs({name: self._sample([call])})

    def _on_output_gradient(self, use: str, call: Call, gradient: Tensor) -> None:
        name = self._block(use, call) if self._collecting else None
        if name is None:
            return
        call.check()
        call.g = gradient
        if call.mask is not None:  # nothing flows back from padding in most networks; nothing of it counts in any
            call.g = gradient * call.mask.reshape(*call.mask.shape, *(1,) * (gradient.ndim - 2)).to(gradient.dtype)
        if self.stream:
            group = self._group[name]
            self._waiting[group] -= 1
            if self._waiting[group] == 0:
                self._show_gradients(group)
                for done in (call for member in group for call in self._calls.get(member, ())):
                    done.g = None

    def _refuse_new_use(self, use: str, call: Call) -> None:
        """A parameter that is used in a way that the survey has not seen would be counted in part."""
        if not call.watched or not self.found.uses or use_key(use, call.layer) in self.found.uses:
            return
        known = {id(p) for block in self.found.blocks.values() for p in block.layer.parameters.values()}
        if not known.isdisjoint(id(p) for p in call.layer.parameters.values()):
            what = f"the network uses {use} in another way in this batch than in the first look at it"
            raise CurvlabError(what, "what was measured of it would be a part", "give batches that all run alike")

    def _block(self, use: str, call: Call) -> str | None:
        return self.found.block_of.get(use_key(use, call.layer))

    def _show_inputs(self, samples: dict[str, Sample]) -> None:
        assert self._observer is not None
        calls = [call for sample in samples.values() for call in sample.calls]
        for call in calls:
            call.check()
        with torch.no_grad(), self.full_precision():
            self._observer.inputs(samples)
        if self.stream and not self.hold_inputs:
            for call in calls:
                call.x = None

    def _show_gradients(self, group: Collection[str], keep: bool = False) -> dict[str, Sample]:
        calls = {name: [c for c in self._calls.get(name, ()) if c.g is not None] for name in group}
        # Samples that are kept have calls of their own: these lose their gradients when the next pass begins.
        samples = {n: self._sample([replace(c) for c in own] if keep else own) for n, own in calls.items() if own}
        if self._observer is not None and samples:
            with torch.no_grad(), self.full_precision():
                self._observer.output_gradients(samples, self._passed)
        return samples

    def _sample(self, calls: list[Call]) -> Sample:
        return Sample(calls, self.tape.examples, self.dtype)


def _shown_by(found: Survey, blocks: Collection[str]) -> tuple[dict[str, Layer | Unrolled], bool]:
    """The modules that show these blocks, and False; all, and True if a parameter is used outside modules for one."""
    owners: dict[str, str] = {}
    for name, adapted in found.modules.items():
        prefix = f"{name}." if name else ""
        parts = [name] if isinstance(adapted, Layer) else [prefix + part for part in adapted.layers]
        owners.update(dict.fromkeys(parts, name))
    uses = [use for block in blocks for use in found.blocks[block].uses]
    if not owners.keys() >= set(uses) or any(found.blocks[block].watched for block in blocks):
        return found.modules, True
    return {name: found.modules[name] for name in dict.fromkeys(owners[use] for use in uses)}, False


def _mask_of(call: Call, mask: Tensor | None) -> Tensor | None:
    """The batch's mask, for a map that has one row per position of the mask: others see no padding as such."""
    if mask is None or call.x is None or call.axis != 0:
        return None
    if call.places is not None:
        counted: Tensor = call.places.mask(mask)
        return counted
    return mask if call.x.shape[:2] == mask.shape and call.rows == mask.numel() else None

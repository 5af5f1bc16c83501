"""DataScore: how well the network answers on the data that it is analysed on, from the forward passes that run anyway.

Numbers of a network that knows nothing of its data (inputs scaled otherwise than in training, shuffled labels) describe
that mistake: a warning says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.analyses.mean_gradient import Batch
from curvlab.capture.output import output_tensor
from curvlab.document.numbers import short
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from curvlab.likelihoods.bernoulli import fit
from curvlab.likelihoods.masked import Masked
from curvlab.likelihoods.of_batch import of_batch
from curvlab.linalg.float64 import CHUNK, double


class DataScore:
    """Loss and metric over all batches that `watching` hands on, in float64, without a forward pass of its own.

    The loss is a mean over targets: over examples, and over positions that count where an example has several. The
    metric is the accuracy of classes and of outputs that are 0 or 1, and 1 − Σ‖z − y‖²/Σ‖y − ȳ‖² (R²) of real numbers.

    Args:
        likelihood: ℓ.
    """

    def __init__(self, likelihood: Likelihood) -> None:
        self.likelihood = likelihood
        self._waiting: Batch | None = None
        self._known = True
        self._tokens = False
        self._sums: dict[str, float] = {}
        self._classes = torch.zeros(0, dtype=torch.float64)
        self._means: tuple[Tensor, Tensor] | None = None

    def watching(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; the next output of the network is scored by each one's targets."""
        for batch in batches:
            self._waiting = batch
            yield batch

    def seen(self, _: nn.Module, __: Any, output: Any) -> None:
        """A forward hook of the network: scores the first output after a batch was handed on."""
        batch, self._waiting = self._waiting, None
        if batch is None or not self._known:
            return
        inputs, targets = batch
        if targets is None:
            self._known = False
            return
        try:
            with torch.no_grad():
                self._add(output_tensor(output).detach(), targets, inputs)
        except CurvlabError:  # targets that are not this likelihood's
            self._known = False

    def facts(self) -> dict[str, Any]:
        """What is added to the JSON's `data`: `loss`, the metric, and under `chance` what knowing nothing would give.

        Empty without targets, or where they are not the likelihood's.
        """
        count = self._sums.get("count", 0.0)
        if not self._known or not count:
            return {}
        loss = self._sums["loss"] / count
        if isinstance(self.likelihood, Gaussian):
            return self._of_numbers(loss)
        outputs = self._sums["answers"]
        found = {"loss": loss, "accuracy": self._sums["right"] / outputs}
        if isinstance(self.likelihood, Bernoulli):
            if self._sums["hard"] < outputs:  # targets between 0 and 1 have no right answer
                return {"loss": loss, "chance": {"loss": math.log(2) * outputs / count}}
            ones = self._classes / count
            common = float(torch.maximum(ones, 1 - ones).mean())
            return {**found, "chance": {"loss": math.log(2) * outputs / count, "accuracy": common}}
        common = float(self._classes.max()) / count
        perplexity = {"perplexity": math.exp(min(loss, 700.0))} if self._tokens else {}
        return {**found, **perplexity, "chance": {"loss": math.log(len(self._classes)), "accuracy": common}}

    def _of_numbers(self, loss: float) -> dict[str, Any]:
        assert self._means is not None
        total, squares = self._means
        spread = float((squares - total.square() / self._sums["count"]).clamp(min=0).sum())
        r2 = 1 - 2 * loss * self._sums["count"] / spread if spread > 0 else None
        return {"loss": loss, "r2": r2, "chance": {"loss": spread / (2 * self._sums["count"]), "r2": 0.0}}

    def _add(self, z: Tensor, y: Tensor, inputs: Any) -> None:
        chosen = of_batch(self.likelihood, z, y, inputs)
        mask = chosen.mask if isinstance(chosen, Masked) else None
        plain = chosen.inner if isinstance(chosen, Masked) else chosen
        plain.check(z)
        if isinstance(plain, Categorical):
            self._tokens |= isinstance(inputs, Mapping) and "input_ids" in inputs and z.ndim > 2
            self._add_classes(z.movedim(plain.class_axis, -1), y, mask)
        elif isinstance(plain, Bernoulli):
            self._add_binary(double(z), double(fit(z, y)))
        elif isinstance(plain, Gaussian) and mask is None:
            self._add_numbers(double(z).flatten(1), double(fit(z, y)).flatten(1))
        else:
            self._known = False

    def _add_classes(self, z: Tensor, y: Tensor, mask: Tensor | None) -> None:
        """Some examples at a time, so that a float64 copy of the outputs of a large vocabulary is never there."""
        if y.shape != z.shape[:-1] or y.is_floating_point():
            self._known = False
            return
        mask = torch.ones(y.shape, dtype=torch.bool, device=z.device) if mask is None else mask.to(z.device)
        z, y, mask = z.reshape(-1, z.shape[-1]), y.reshape(-1), mask.reshape(-1)
        if not len(self._classes):
            self._classes = torch.zeros(z.shape[-1], dtype=torch.float64)
        kept = mask.nonzero()[:, 0]
        for places in torch.split(kept, max(1, CHUNK // z.shape[-1])):
            scores, wanted = double(z[places]), y[places].long()
            if len(wanted) and not (int(wanted.min()) >= 0 and int(wanted.max()) < z.shape[-1]):
                raise CurvlabError("targets are no classes of the outputs")
            wanted = wanted.to(scores.device)
            lost = scores.logsumexp(1) - scores.gather(1, wanted[:, None])[:, 0]
            self._count(len(wanted), lost, scores.argmax(1) == wanted)
            self._classes += torch.bincount(wanted, minlength=z.shape[-1]).double().cpu()

    def _add_binary(self, z: Tensor, y: Tensor) -> None:
        lost = nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none").flatten(1).sum(1)
        self._count(len(z), lost, (z > 0) == (y > 0.5))
        ones = (y > 0.5).flatten(1).double().sum(0).cpu()
        self._classes = ones if not len(self._classes) else self._classes + ones
        self._sums["hard"] = self._sums.get("hard", 0.0) + float(((y == 0) | (y == 1)).sum())

    def _add_numbers(self, z: Tensor, y: Tensor) -> None:
        self._count(len(z), (z - y).square().sum(1) / 2, None)
        sums = (y.sum(0).cpu(), y.square().sum(0).cpu())
        self._means = sums if self._means is None else (self._means[0] + sums[0], self._means[1] + sums[1])

    def _count(self, count: int, lost: Tensor, right: Tensor | None) -> None:
        added = {"count": count, "loss": float(lost.sum())}
        if right is not None:
            added |= {"answers": right.numel(), "right": float(right.sum())}
        for name, number in added.items():
            self._sums[name] = self._sums.get(name, 0.0) + number


NAMES = {"loss": "loss", "accuracy": "accuracy", "r2": "R²", "perplexity": "perplexity"}
"""Key of the JSON's `data` -> what it is called."""


def score_text(facts: Mapping[str, Any]) -> str:
    """ "loss 0.0512, accuracy 0.983 on this data"; empty where the JSON's `data` has no loss."""
    if facts.get("loss") is None:
        return ""
    known = [f"{name} {short(facts[key])}" for key, name in NAMES.items() if facts.get(key) is not None]
    return f"{', '.join(known)} on this data"


def chance_notes(facts: Mapping[str, Any]) -> Iterator[str]:
    """A warning where a network that knows nothing would do as well; `facts` is the JSON's `data`."""
    chance = facts.get("chance") or {}
    reasons = []
    loss, accuracy, r2 = facts.get("loss"), facts.get("accuracy"), facts.get("r2")
    if r2 is not None and r2 <= 0:
        reasons.append(f"R² {short(r2)} is not above 0, which the mean of the targets has")
    elif "r2" not in facts and loss is not None and "loss" in chance and loss >= chance["loss"]:
        reasons.append(f"its loss {short(loss)} is not below {short(chance['loss'])}, that of equal probabilities")
    if accuracy is not None and accuracy < 1 and accuracy <= chance.get("accuracy", 0.0):
        reasons.append(
            f"its accuracy {short(accuracy)} is not above {short(chance['accuracy'])}, the share of the commonest class"
        )
    if reasons:
        do = "are the inputs scaled, and the classes numbered, as they were in training?"
        if "perplexity" in facts:
            do = "was the text cut into tokens as it was in training?"
        yield f"the model is no better than chance on this data: {'; '.join(reasons)}: {do}"

"""Every example's gradient of ½ ‖z_n‖² with respect to every parameter: from what is recorded of a parameter's uses,
and by one backward pass for every example."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import Samples
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.model_inputs import Inputs, call_model
from curvlab.capture.output import output_tensor
from curvlab.capture.sample import per_example_gradients
from curvlab.capture.survey import Survey
from curvlab.likelihoods import Gaussian
from curvlab.likelihoods.fisher import Fisher


class Gradients:
    """An observer that adds up the gradients of a parameter over its uses.

    Attributes:
        total: parameter -> D_n `[n, *parameter]`.
    """

    def __init__(self, found: Survey) -> None:
        self.found = found
        self.total: dict[str, Tensor] = {}

    def inputs(self, samples: Samples) -> None:
        """Inputs alone have no gradients."""

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """Add those of the blocks that were reached."""
        for name, sample in samples.items():
            gradients = per_example_gradients(sample.layer, sample.features, sample.output_gradients)
            for role, part in sample.layer.split(gradients).items():
                parameter = self.found.blocks[name].parameters[role]
                self.total[parameter] = self.total.get(parameter, 0) + part


def recorded_gradients(model: nn.Module, inputs: Inputs, found: Survey) -> dict[str, Tensor]:
    """Parameter -> D_n, from the uses that the survey has found."""
    observer = Gradients(found)
    with torch.no_grad():
        z = output_tensor(call_model(model, inputs))
    recorder = ForwardBackward(model, "the test", found=found)
    recorder.batch(inputs, torch.zeros_like(z), Fisher(Gaussian(), "empirical", 1, torch.Generator()), observer)
    recorder.close()
    assert not set(recorder.refused) - set(found.refused)
    return observer.total


def exact_gradients(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Parameter -> D_n, by autograd; zero where the output does not depend on it."""
    named = dict(model.requires_grad_().named_parameters())
    z = output_tensor(call_model(model, inputs))
    rows: list[list[Tensor]] = []
    for n in range(len(z)):
        cotangent = torch.zeros_like(z)
        cotangent[n] = z[n].detach()
        found = torch.autograd.grad(z, list(named.values()), cotangent, retain_graph=True, allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for g, p in zip(found, named.values(), strict=True)])
    return {name: torch.stack(parts) for name, parts in zip(named, zip(*rows, strict=True), strict=True)}

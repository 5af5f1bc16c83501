"""TorchScript and torch.export archives run with --trust: layers recognised, answers kept, the rest said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from formats.graph_modules import Branching, Mixed, Mixing, Stateful, Tied, Viewed
from real_models import real_model
from torch import Tensor, nn

import curvlab
from curvlab.errors import CurvlabError
from curvlab.formats.graph_answers import close
from curvlab.formats.load import load


def scripted(module: nn.Module, path: Path, example: Tensor) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), path)
    return path


def traced(module: nn.Module, path: Path, example: Tensor) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, example), path)
    return path


def exported(module: nn.Module, path: Path, example: Tensor) -> Path:
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, path)
    return path


ROADS: dict[str, Callable[[nn.Module, Path, Tensor], Path]] = {
    "script": scripted,
    "trace": traced,
    "export": exported,
}


@pytest.mark.parametrize("road", ROADS)
def test_every_kind_of_layer_is_recognised(road: str, tmp_path: Path) -> None:
    module, x = Mixed().eval(), torch.randn(30, 2, 8)
    checkpoint = load(ROADS[road](module, tmp_path / "m.pt2", x[:2]), trust=True)
    assert checkpoint.module is not None
    assert torch.allclose(checkpoint.module(x), module(x), atol=1e-6)
    found, wanted = (
        curvlab.analyze(given, (x, torch.randint(0, 3, (30,), generator=torch.Generator().manual_seed(0))))
        for given in (checkpoint, module)
    )
    assert [(layer.name, layer.kind) for layer in found.layers] == [(layer.name, layer.kind) for layer in wanted.layers]
    assert found.coverage.analyzed == found.coverage.parameters
    for ours, theirs in zip(found.layers, wanted.layers, strict=True):
        assert ours.kfac is not None
        assert theirs.kfac is not None
        assert ours.kfac.kronecker.max == pytest.approx(theirs.kfac.kronecker.max, rel=1e-4)
        assert ours.moments is not None
        assert theirs.moments is not None
        assert ours.moments.count == theirs.moments.count


@pytest.mark.parametrize("road", ["script", "export"])
def test_tied_weights_stay_tied(road: str, tmp_path: Path) -> None:
    module, ids = Tied().eval(), torch.randint(0, 9, (12, 5))
    checkpoint = load(ROADS[road](module, tmp_path / "m", ids[:2]), trust=True)
    assert checkpoint.module is not None
    assert sum(p.numel() for p in checkpoint.module.parameters()) == 36
    analysis = curvlab.analyze(checkpoint, (ids, torch.randint(0, 9, (12,))))
    assert sorted(layer.kind for layer in analysis.layers if layer.kfac is not None) == ["Embedding", "Linear"]


def test_control_flow_is_followed(tmp_path: Path) -> None:
    module = Branching().eval()
    checkpoint = load(scripted(module, tmp_path / "m.pt", torch.ones(2, 4)), trust=True)
    assert checkpoint.module is not None
    for count in (3, 120):
        x = torch.randn(count, 4)
        assert torch.allclose(checkpoint.module(x), module(x), atol=1e-6)
    analysis = curvlab.analyze(checkpoint, (torch.randn(9, 4), torch.randint(0, 2, (9,))))
    assert [layer.name for layer in analysis.layers if layer.kfac is not None] == ["parts.0", "parts.1", "head"]


def test_without_trust_there_are_weights_and_the_reason(tmp_path: Path) -> None:
    for road, save in ROADS.items():
        checkpoint = load(save(Mixed().eval(), tmp_path / road, torch.randn(2, 2, 8)))
        assert checkpoint.module is None
        assert any("--trust runs it" in note for note in checkpoint.notes)
        assert {layer.kind for layer in checkpoint.layers} >= {"Conv1d", "Linear", "BatchNorm"}


def test_what_changes_itself_is_said(tmp_path: Path) -> None:
    path = scripted(Stateful().eval(), tmp_path / "m.pt", torch.ones(1, 2))
    with pytest.raises(CurvlabError, match="changes its attribute last"):
        curvlab.analyze(load(path, trust=True), (torch.ones(3, 2), torch.zeros(3, dtype=torch.long)))


def test_a_rebuilt_network_that_answers_otherwise_is_not_used(tmp_path: Path) -> None:
    path = scripted(Mixed().eval(), tmp_path / "m.pt", torch.ones(1, 2))
    module = load(path, trust=True).module
    assert module is not None
    with torch.no_grad():
        module.get_parameter("head.weight").mul_(1.01)
        # the parameters are shared with the script: what differs here is what the script alone keeps
        module.get_submodule("ln").eps = 10.0
    with pytest.raises(CurvlabError, match="does not answer as TorchScript does"):
        module(torch.randn(4, 2, 8))


def test_a_graph_for_one_size_of_batch_is_not_run_on_another(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Viewed().eval(), (torch.ones(2, 2, 3),)), tmp_path / "m.pt2")
    checkpoint = load(tmp_path / "m.pt2", trust=True)
    assert checkpoint.module is None
    assert "exported for batches of 2" in checkpoint.notes[-1]
    assert "dynamic_shapes" in checkpoint.notes[-1]


@pytest.mark.parametrize("road", ["script", "trace", "export"])
@pytest.mark.parametrize("examples", [1, 2])
def test_a_graph_that_mixes_the_examples_of_a_batch_is_refused(road: str, examples: int, tmp_path: Path) -> None:
    """It runs on batches of any size, and rebuilt it answers as the graph does."""
    module, x = Mixing(examples).eval(), torch.randn(4, 5, 4)
    together, apart = module(x), torch.cat([Mixing.forward(module, part) for part in x.split(examples)])
    assert together.shape == apart.shape
    assert not torch.allclose(together, apart, atol=1e-3)
    if road == "export":
        torch.export.save(torch.export.export(module, (x[:examples],)), tmp_path / "m.pt2")
        checkpoint = load(tmp_path / "m.pt2", trust=True)
        assert checkpoint.module is None
        assert f"exported for batches of {examples}" in checkpoint.notes[-1]
        return
    checkpoint = load(ROADS[road](module, tmp_path / "m.pt", x[:examples]), trust=True)
    for given in (x, x[:examples], x[:examples]):
        assert checkpoint.module is not None
        with pytest.raises(CurvlabError, match="fixed to batches of one size"):
            checkpoint.module(given)


def test_a_script_that_fails_on_other_batches_is_refused(tmp_path: Path) -> None:
    class Fixed(Viewed):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.view(2, 6))

    module = load(scripted(Fixed().eval(), tmp_path / "m.pt", torch.ones(2, 2, 3)), trust=True).module
    assert module is not None
    with pytest.raises(CurvlabError, match="fails on batches of other sizes"):
        module(torch.randn(2, 2, 3))


def test_infinities_do_not_widen_the_tolerance() -> None:
    inf, nan = float("inf"), float("nan")
    wanted = torch.tensor([-inf, 1.0, 2.0, nan, inf])
    assert close(wanted.clone(), wanted)
    assert close(wanted + torch.tensor([0, 1e-5, 0, 0, 0]), wanted)
    for place, value in ((1, 1.001), (0, inf), (0, -3e38), (3, 0.0), (4, nan), (1, inf)):
        found = wanted.clone()
        found[place] = value
        assert not close(found, wanted)
    assert not close(torch.tensor([-inf, 5.0, 9.0]), torch.tensor([-inf, 1.0, 2.0]))
    assert close(torch.tensor([inf]), torch.tensor([inf]))


def test_parameters_of_unknown_operators_are_said(tmp_path: Path) -> None:
    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    checkpoint = load(traced(Scan().eval(), tmp_path / "m.pt", torch.randn(2, 5, 3)), trust=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = curvlab.analyze(checkpoint, (torch.randn(2, 5, 3), torch.tensor([0, 1])))
    said = {block.name: block for block in analysis.coverage.blocks}
    assert said["head"].status == "analyzed"
    assert all("gru" in str(block.reason) for name, block in said.items() if name != "head")


def test_the_keyword_inputs_of_a_program_keep_their_names(tmp_path: Path) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            x = self.embed(input_ids) * attention_mask[..., None]
            return {"logits": self.head(x.sum(1)), "hidden": x}

    inputs = {"input_ids": torch.randint(0, 9, (2, 5)), "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    dynamic = {key: {0: torch.export.Dim.DYNAMIC} for key in inputs}
    module = Reader().eval()
    torch.export.save(torch.export.export(module, (), inputs, dynamic_shapes=dynamic), tmp_path / "m.pt2")
    rebuilt = load(tmp_path / "m.pt2", trust=True).module
    assert rebuilt is not None
    assert torch.allclose(rebuilt(**inputs)[0], module(**inputs)["logits"])


def test_silero_in_two_formats_has_the_same_tensors() -> None:
    """The 28 float tensors that the TorchScript and the ONNX file share, by their numbers; names are not kept there."""
    script, graph = load(real_model("silero-torchscript")), load(real_model("silero-onnx"))
    ours = [t for t in script.tensors.values() if t.is_floating_point() and t.numel() > 1]
    theirs = [t for t in graph.tensors.values() if t.is_floating_point() and t.numel() > 1]
    shared = sum(any(a.shape == b.shape and torch.equal(a, b) for b in theirs) for a in ours)
    assert shared == 28
    trusted = load(real_model("silero-torchscript"), trust=True)
    assert trusted.module is not None
    with pytest.raises(CurvlabError, match="the network takes 'x', 'sr'"):
        trusted.module(torch.randn(2, 512))
    with pytest.raises(CurvlabError, match="changes its attribute _context"):
        trusted.module(torch.randn(2, 512), 16000)

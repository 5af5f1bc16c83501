"""Networks as data: every allow-listed class there and back, sharing kept, everything else refused."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from curvlab.errors import CheckpointError
from curvlab.formats.curvlab_file.allowed_modules import ARGUMENTS
from curvlab.formats.curvlab_file.builders import build_registered, register_builder
from curvlab.formats.curvlab_file.describe import build, describe

# One instance of every class with arguments other than the defaults.
INSTANCES: list[nn.Module] = [
    nn.Identity(),
    nn.Linear(3, 4, bias=False),
    nn.Embedding(7, 3, padding_idx=2, max_norm=1.5, norm_type=1.0, scale_grad_by_freq=True),
    nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=False, padding_mode="circular"),
    nn.Conv2d(4, 6, (3, 1), padding="same"),
    nn.Conv3d(2, 3, 2, padding=(1, 0, 1)),
    nn.ConvTranspose1d(4, 6, 3, stride=3, output_padding=1),
    nn.ConvTranspose2d(4, 6, 3, stride=(2, 3), output_padding=(1, 2), groups=2),
    nn.ConvTranspose3d(2, 3, 2, bias=False),
    nn.BatchNorm1d(4, eps=1e-3, momentum=None),
    nn.BatchNorm2d(4, affine=False),
    nn.BatchNorm3d(4, track_running_stats=False),
    nn.InstanceNorm1d(4, affine=True),
    nn.InstanceNorm2d(4, track_running_stats=True),
    nn.InstanceNorm3d(4),
    nn.GroupNorm(2, 6, eps=1e-3),
    nn.LayerNorm((3, 4), bias=False),
    nn.RMSNorm(4, eps=1e-3),
    nn.LocalResponseNorm(2, alpha=1e-3),
    nn.LSTM(3, 4, 2, bias=False, batch_first=True, dropout=0.1, bidirectional=True, proj_size=2),
    nn.GRU(3, 4, 2, bidirectional=True),
    nn.RNN(3, 4, nonlinearity="relu"),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.SELU(),
    nn.SiLU(),
    nn.Mish(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.LeakyReLU(0.3),
    nn.ELU(0.5),
    nn.CELU(0.5),
    nn.GELU("tanh"),
    nn.PReLU(5),
    nn.Hardtanh(-2, 2),
    nn.Threshold(0.1, 20),
    nn.Softplus(2, 10),
    nn.Softshrink(0.3),
    nn.Hardshrink(0.3),
    nn.GLU(1),
    nn.Softmax(1),
    nn.Softmin(1),
    nn.LogSoftmax(1),
    nn.Sigmoid(),
    nn.LogSigmoid(),
    nn.Tanh(),
    nn.Tanhshrink(),
    nn.Softsign(),
    nn.MaxPool1d(3, 2, 1),
    nn.MaxPool2d((3, 2), ceil_mode=True),
    nn.MaxPool3d(2, return_indices=True),
    nn.AvgPool1d(3),
    nn.AvgPool2d(3, divisor_override=2),
    nn.AvgPool3d((1, 2, 3), count_include_pad=False),
    nn.AdaptiveAvgPool1d(3),
    nn.AdaptiveAvgPool2d((None, 3)),
    nn.AdaptiveAvgPool3d(1),
    nn.AdaptiveMaxPool1d(3),
    nn.AdaptiveMaxPool2d(2, return_indices=True),
    nn.AdaptiveMaxPool3d((1, 2, 3)),
    nn.Flatten(0, 1),
    nn.Unflatten(1, (2, 3)),
    nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    nn.PixelShuffle(2),
    nn.PixelUnshuffle(2),
    nn.ChannelShuffle(2),
    nn.ZeroPad1d(1),
    nn.ZeroPad2d((1, 2, 3, 4)),
    nn.ZeroPad3d(1),
    nn.ReflectionPad1d(1),
    nn.ReflectionPad2d(1),
    nn.ReflectionPad3d(1),
    nn.ReplicationPad1d(1),
    nn.ReplicationPad2d(1),
    nn.ReplicationPad3d(1),
    nn.ConstantPad1d(1, 2.5),
    nn.ConstantPad2d(1, 2.5),
    nn.ConstantPad3d(1, 2.5),
    nn.Dropout(0.3),
    nn.Dropout1d(0.3),
    nn.Dropout2d(0.3),
    nn.Dropout3d(0.3),
    nn.AlphaDropout(0.3),
    nn.FeatureAlphaDropout(0.3),
]


def through_json(module: nn.Module) -> nn.Module:
    return build(json.loads(json.dumps(describe(module), allow_nan=False)))


@pytest.mark.parametrize("module", INSTANCES, ids=lambda module: type(module).__name__)
def test_a_class_there_and_back(module: nn.Module) -> None:
    again = through_json(module)
    assert type(again) is type(module)
    assert repr(again) == repr(module)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in module.state_dict().items()}
    plain = {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str | tuple)}
    assert {name: vars(again)[name] for name in plain} == plain


def test_every_allowed_class_has_its_instance() -> None:
    assert {type(module).__name__ for module in INSTANCES} == set(ARGUMENTS)


def test_nested_sequences_keep_their_names_and_order() -> None:
    inner = nn.Sequential(OrderedDict(b=nn.Linear(3, 3), a=nn.ReLU()))
    module = nn.Sequential(OrderedDict(first=inner, second=nn.Sequential(), third=nn.Linear(3, 2)))
    again = through_json(module)
    assert repr(again) == repr(module)
    assert list(again.state_dict()) == list(module.state_dict())


def test_a_module_used_twice_is_one_module() -> None:
    shared = nn.Linear(3, 3)
    again = through_json(nn.Sequential(shared, nn.ReLU(), shared, nn.Sequential(shared)))
    assert again[0] is again[2]  # type: ignore[index]
    assert again[3][0] is again[0]  # type: ignore[index]


class Mine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Linear(nn.Linear):
    """Of the same name as torch's, and not the same."""


def _replaced_forward() -> nn.Module:
    module = nn.Linear(2, 2)
    module.forward = lambda x: x  # type: ignore[method-assign, assignment]
    return module


@pytest.mark.parametrize(
    "module", [Mine(), Linear(2, 2), _replaced_forward(), nn.ModuleList([nn.ReLU()]), nn.Bilinear(2, 2, 2)]
)
def test_other_classes_are_refused_by_name(module: nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r"'1' is of the class .*architecture=\"package.module:callable\""):
        describe(nn.Sequential(nn.ReLU(), module))


GOOD = describe(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))


def _with_first(**changes: Any) -> Any:
    changed = copy.deepcopy(GOOD)
    changed["network"]["children"][0][1].update(changes)
    return changed


def _nested(depth: int) -> Any:
    node: dict[str, Any] = {"type": "ReLU", "arguments": {}}
    for _ in range(depth):
        node = {"type": "Sequential", "children": [["0", node]]}
    return {"version": 1, "network": node}


def _lists(depth: int) -> Any:
    value: Any = [1]
    for _ in range(depth):
        value = [value]
    return value


BAD: dict[str, Any] = {
    "no table": [],
    "no version": {"network": GOOD["network"]},
    "another version": {**GOOD, "version": 2},
    "no network": {"version": 1},
    "unknown class": _with_first(type="Bilinear"),
    "a class of the system": _with_first(type="os.system"),
    "a private attribute of torch.nn": _with_first(type="__builtins__"),
    "a class that is no text": _with_first(type=["Linear"]),
    "an argument it does not take": _with_first(arguments={"in_features": 3, "out_features": 4, "device": "cpu"}),
    "a missing argument": _with_first(arguments={"in_features": 3}),
    "a text for a size": _with_first(arguments={"in_features": "3", "out_features": 4}),
    "a negative size": _with_first(arguments={"in_features": -3, "out_features": 4}),
    "a size beyond all": _with_first(arguments={"in_features": 2**40, "out_features": 2**40}),
    "an overflowing product": _with_first(arguments={"in_features": 2**31, "out_features": 2**31, "bias": True}),
    "an argument that is a table": _with_first(arguments={"in_features": {}, "out_features": 4}),
    "lists in lists": _with_first(type="LayerNorm", arguments={"normalized_shape": _lists(900)}),
    "a long list": _with_first(type="LayerNorm", arguments={"normalized_shape": [1] * 1000}),
    "a million layers": _with_first(type="LSTM", arguments={"input_size": 1, "hidden_size": 1, "num_layers": 10**6}),
    "tensors without end": {
        "version": 1,
        "network": {
            "type": "Sequential",
            "children": [
                [str(i), {"type": "LSTM", "arguments": {"input_size": 1, "hidden_size": 1, "num_layers": 1000}}]
                for i in range(5000)
            ],
        },
    },
    "children that are no list": {"version": 1, "network": {"type": "Sequential", "children": {}}},
    "a child without name": {"version": 1, "network": {"type": "Sequential", "children": [GOOD["network"]]}},
    "a name with a dot": {"version": 1, "network": {"type": "Sequential", "children": [["a.b", GOOD["network"]]]}},
    "a name of the container's own": {
        "version": 1,
        "network": {"type": "Sequential", "children": [["forward", GOOD["network"]]]},
    },
    "a name twice": {"version": 1, "network": {"type": "Sequential", "children": [["a", GOOD["network"]]] * 2}},
    "a reference to nothing": {"version": 1, "network": {"same": "0"}},
    "a reference that is no text": {"version": 1, "network": {"same": ["0"]}},
    "a module inside itself": {"version": 1, "network": {"type": "Sequential", "children": [["0", {"same": ""}]]}},
    "too deep": _nested(100),
    "too many": {
        "version": 1,
        "network": {
            "type": "Sequential",
            "children": [[str(i), {"type": "ReLU", "arguments": {}}] for i in range(20_000)],
        },
    },
    "an unknown builder": {"version": 1, "builder": "nobody's"},
    "a builder that is no text": {"version": 1, "builder": ["x"]},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_descriptions(name: str) -> None:
    with torch.device("meta"), pytest.raises(CheckpointError) as caught:
        build(BAD[name])
    assert "\n" not in str(caught.value)


def test_the_good_description_builds() -> None:
    assert repr(build(GOOD)) == repr(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))


def test_registered_builders() -> None:
    def tiny(width: int = 2) -> nn.Module:
        return nn.Linear(width, 1)

    register_builder("test-descriptions-tiny", tiny)
    register_builder("test-descriptions-tiny", tiny)  # importing a package twice is no fault
    with pytest.raises(ValueError, match="registered already"):
        register_builder("test-descriptions-tiny", lambda: nn.ReLU())
    module = build({"version": 1, "builder": "test-descriptions-tiny", "arguments": {"width": 5}})
    assert isinstance(module, nn.Linear)
    assert module.in_features == 5
    with pytest.raises(CheckpointError, match="refuses the recorded arguments"):
        build_registered("test-descriptions-tiny", {"height": 5})

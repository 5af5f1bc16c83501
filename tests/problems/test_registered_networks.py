"""Networks that are no nn.Sequential: against torch's own layers, saved as data, and known to the capture."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import curvlab
from curvlab.capture.survey import survey
from curvlab.errors import CheckpointError
from curvlab.formats.curvlab_file.builders import build_registered
from curvlab.problems.initialisation import fan_in_normal, glorot_normal, he
from curvlab.problems.networks import all_convolutional
from curvlab.problems.registry import problem
from curvlab.problems.unet import UNet
from curvlab.problems.vision_transformer import Block, VisionTransformer

SMALL = {"image": (1, 4, 4), "patch": 2, "width": 8, "hidden": 6, "heads": 2, "num_layers": 1}


def test_a_block_is_torchs_encoder_layer(float64):
    own = Block(12, 20, 3, affine=True, dropout=0.0)
    theirs = nn.TransformerEncoderLayer(12, 3, 20, 0.0, nn.GELU("tanh"), batch_first=True, norm_first=True)
    with torch.no_grad():
        for name in ("norm1", "norm2"):
            for part in ("weight", "bias"):
                getattr(getattr(own, name), part).copy_(torch.randn(12))
                getattr(getattr(theirs, name), part).copy_(getattr(getattr(own, name), part))
        attention = own.attention
        theirs.self_attn.in_proj_weight.copy_(
            torch.cat([attention.query.weight, attention.key.weight, attention.value.weight])
        )
        theirs.self_attn.in_proj_bias.zero_()
        theirs.self_attn.out_proj.weight.copy_(attention.out.weight)
        theirs.self_attn.out_proj.bias.zero_()
        theirs.linear1.load_state_dict(own.fc1.state_dict())
        theirs.linear2.load_state_dict(own.fc2.state_dict())
    x = torch.randn(4, 7, 12)
    torch.testing.assert_close(own(x), theirs(x))


def test_tokens_are_patches_in_reading_order_behind_the_class_token(float64):
    module = VisionTransformer(**SMALL).eval()
    seen = []
    module.blocks.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(3, 1, 4, 4)
    module(x)
    patches = [x[:, 0, i : i + 2, j : j + 2].flatten(1) for i in (0, 2) for j in (0, 2)]
    kernel = module.patches.weight.flatten(1)
    tokens = [module.class_token.expand(3, -1), *(patch @ kernel.T + module.patches.bias for patch in patches)]
    torch.testing.assert_close(seen[0], torch.stack(tokens, 1) + module.position)


@pytest.mark.parametrize(("change", "said"), [({"patch": 3}, "do not tile"), ({"heads": 3}, "do not divide")])
def test_a_transformer_that_cannot_be(change, said):
    with pytest.raises(ValueError, match=said):
        VisionTransformer(**{**SMALL, **change})
    with pytest.raises(CheckpointError, match=said):
        build_registered("vision-transformer", {**SMALL, **change})


def test_a_unet_moves_with_its_image(float64):
    """Away from the border, moving the image by what pooling divides by moves the scores."""
    module = UNet(channels=2, widths=(3, 4, 5), classes=2)
    image = torch.zeros(1, 2, 64, 64)
    image[:, :, 28:34, 28:34] = torch.randn(2, 6, 6)
    scores, moved = module(image), module(image.roll((4, -4), (2, 3)))
    assert scores.shape == (1, 2, 64, 64)
    inside = slice(22, 42)  # 22 pixels is as far as the border's zeros are felt
    torch.testing.assert_close(scores.roll((4, -4), (2, 3))[..., inside, inside], moved[..., inside, inside])
    by_one = module(image.roll(1, 2))[..., inside, inside]
    assert not torch.allclose(scores.roll(1, 2)[..., inside, inside], by_one)


def test_a_unet_keeps_detail_that_its_depth_has_lost():
    module = UNet(channels=1, widths=(3, 4, 5), classes=2)
    with torch.no_grad():
        for up in module.up:
            for parameter in up.parameters():
                parameter.zero_()
    a, b = module(torch.randn(2, 1, 8, 8))
    assert not torch.allclose(a, b)


def test_the_convolutions_are_those_of_springenberg():
    """All-CNN-C of Springenberg et al. 2014, Table 1, with 10 classes: 1,369,738 parameters."""
    module = all_convolutional(3, (96, 192), 10)
    convolutions = [part for part in module if isinstance(part, nn.Conv2d)]
    assert [part.kernel_size[0] for part in convolutions] == [3] * 7 + [1] * 2
    assert [part.stride[0] for part in convolutions] == [1, 1, 2, 1, 1, 2, 1, 1, 1]
    assert sum(parameter.numel() for parameter in module.parameters()) == 1_369_738
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("draw", "variance"),
    [(he, 2 / 900), (fan_in_normal, 1 / 900), (glorot_normal, 2 / (900 + 720))],
)
def test_initial_weights_have_the_variance_of_their_formula(draw, variance):
    layer = nn.Conv2d(100, 80, 3)
    draw(layer)
    # 72,000 weights: the relative error of a variance is √(2/72000) = 0.5%.
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.03)
    assert not layer.bias.any()


@pytest.mark.parametrize("name", ["digits-vit", "shapes-unet", "digits-cnn9", "factorisation"])
def test_every_parameter_is_in_a_block(name):
    module = problem(name).build(0)
    found = survey(module, torch.rand(2, *problem(name).input_shape))
    covered = [parameter for block in found.blocks.values() for parameter in block.parameters.values()]
    assert sorted(covered) == sorted(name for name, _ in module.named_parameters())
    bare = {key for key, block in found.blocks.items() if block.layer.kind.startswith("Parameter")}
    assert bare == ({"class_token", "position"} if name == "digits-vit" else set())


def test_a_file_alone_gives_the_network_in_another_process(tmp_path):
    """One process for both networks, since it takes seconds to start."""
    places = []
    for name in ("digits-vit", "shapes-unet"):
        module, x = copy.deepcopy(problem(name).build(0)), torch.rand(2, *problem(name).input_shape)
        curvlab.save(tmp_path / name, module)
        torch.save((x, module(x).detach()), tmp_path / f"{name}.pt")
        places.append(str(tmp_path / name))
    code = (
        "import sys, torch, curvlab\n"
        "for place in sys.argv[1:]:\n"
        "    x, z = torch.load(f'{place}.pt')\n"
        "    assert torch.allclose(curvlab.load(place).module(x), z, atol=1e-5), place\n"
    )
    assert subprocess.run([sys.executable, "-c", code, *places], check=False).returncode == 0


def test_a_network_changed_after_it_was_made_is_not_recorded_as_if_it_were_not(tmp_path):
    for change in (_other_activation, _other_forward):
        module = problem("digits-vit").build(0)
        change(module)
        with pytest.raises(CheckpointError, match="curvlab can record only"):
            curvlab.save(tmp_path / "m", module)
    with pytest.raises(CheckpointError, match="curvlab can record only"):
        curvlab.save(tmp_path / "m", VisionTransformer(**SMALL))
    assert not (tmp_path / "m").exists()


def _other_activation(module):
    module.blocks[0].gelu = nn.ReLU()


def _other_forward(module):
    module.blocks[1].forward = lambda x: x

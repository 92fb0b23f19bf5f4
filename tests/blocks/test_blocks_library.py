"""What may stand in a block's place."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from stillhouse.blocks.cost import macs_of, params_of
from stillhouse.blocks.library.offers import KINDS, offers
from stillhouse.blocks.partition import Block, partition
from stillhouse.models.from_timm import build_timm
from stillhouse.recipe.blockwise import Replacement


def blocks_of(name: str, by: Any = "block") -> tuple[Block, ...]:
    torch.manual_seed(0)
    return partition(build_timm(name, {}, 3, 10), torch.randn(2, 3, 64, 64), by)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenetv2_100", "densenet121"])
def test_replacements_keep_shapes_and_never_grow(name: str) -> None:
    """Each gives the block's shape, in both modes, and has more of neither parameters nor multiply-adds."""
    kinds = set()
    for block in blocks_of(name)[:6]:
        before = copy.deepcopy(block.core.state_dict())
        for each in offers(block, 0):
            kinds.add(each.name.partition("-")[0])
            for training in (False, True):
                outputs = each.module.train(training)(torch.randn(3, *block.in_shape))
                assert outputs.shape == (3, *block.out_shape)
            assert params_of(each.module) <= params_of(block.core)
            assert macs_of(each.module, block.in_shape) <= macs_of(block.core, block.in_shape)
            own = {id(parameter) for parameter in each.module.parameters()}
            assert not own & {id(parameter) for parameter in block.core.parameters()}, "a copy"
        after = block.core.state_dict()
        assert all(torch.equal(value, before[key]) for key, value in after.items()), "the teacher is not touched"
    assert kinds >= {"low_rank", "inverted"}


def test_the_block_that_would_grow_in_the_paper_is_left_alone() -> None:
    """Two separable convolutions in place of VGG's first one would have more weights than it: not offered."""
    first = blocks_of("vgg11_bn", "layer")[0]
    assert [each.name for each in offers(first, 0, ["separable"])] == ["separable-1"]


def test_every_kind_is_offered_somewhere() -> None:
    """A stage of residual blocks may be replaced in every way that there is."""
    stage = blocks_of("resnet18", "stage")[1]
    assert {each.name.partition("-")[0] for each in offers(stage, 0)} == set(KINDS)


def test_initial_weights_follow_from_the_seed() -> None:
    """Same seed, same weights, whatever else is offered or drawn; another seed, others; nothing else is disturbed."""
    block = blocks_of("resnet18")[1]
    state = torch.random.get_rng_state()
    (one,) = (each.module for each in offers(block, 3) if each.name == "inverted-2")
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.randn(5)
    again, other = (offers(block, seed, ["inverted"])[0].module for seed in (3, 4))
    weights = [next(module.parameters()) for module in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_strides_and_dilations_stay() -> None:
    """What replaces a dilated convolution with a stride looks as far and steps as far."""
    network = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 2, dilation=2), nn.BatchNorm2d(16), nn.ReLU()
    )
    block = partition(network, torch.randn(2, 8, 16, 16), "layer")[1]
    for each in offers(block, 0, ["separable", "grouped", "low_rank"]):
        first = next(module for module in each.module.modules() if isinstance(module, nn.Conv2d))
        assert (first.stride, first.dilation, first.padding) == ((2, 2), (2, 2), (2, 2))


@pytest.mark.parametrize(("kind", "limit"), [("low_rank-2", 0.3), ("slimmer-2", 0.8)])
def test_some_start_from_the_teachers_weights(kind: str, limit: float) -> None:
    """Before any training these are nearer to the block than its mean: on weights that have some structure."""
    block = blocks_of("resnet18")[1]
    with torch.no_grad():
        for module in block.core.modules():
            if isinstance(module, nn.Conv2d):
                scale = torch.logspace(0, -3, module.out_channels)
                module.weight.mul_(scale[:, None, None, None])
        inputs = torch.randn(8, *block.in_shape)
        wanted = block.core.eval()(inputs)
        (found,) = (each for each in offers(block, 0) if each.name == kind)
        error = (found.module.eval()(inputs) - wanted).pow(2).mean() / wanted.var()
    assert error < limit


def test_an_exact_rank_is_found() -> None:
    """A convolution that has half of its rank is approximated exactly."""
    wide = nn.Conv2d(16, 32, 3, padding=1, bias=True)
    with torch.no_grad():
        wide.weight.copy_((torch.randn(32, 4) @ torch.randn(4, 144)).reshape(32, 16, 3, 3))
    network = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), wide, nn.ReLU())
    block = partition(network, torch.randn(2, 3, 8, 8), "layer")[1]
    (found,) = (each for each in offers(block, 0, ["low_rank"]) if each.name == "low_rank-4")
    inputs = torch.randn(2, *block.in_shape)
    torch.testing.assert_close(found.module(inputs), block.core(inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["separable", "inverted"])
def test_tiny_images_are_padded_apart(kind: Replacement) -> None:
    """On images below 3x3 a depthwise convolution has its padding done before it, and gives the very same."""
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    block = partition(nn.Sequential(*layers), torch.randn(2, 3, 2, 2), "layer")[1]
    for made in (each.module for each in offers(block, 0, [kind])):
        apart = [each for each in made.modules() if isinstance(each, nn.ZeroPad2d)]
        assert apart
        inputs = torch.randn(3, *block.in_shape)
        outputs = made.eval()(inputs)
        for each in made.modules():
            if isinstance(each, nn.Conv2d) and each.groups > 1:
                each.padding = (1, 1)
            elif isinstance(each, nn.ZeroPad2d):
                each.padding = (0, 0, 0, 0)
        torch.testing.assert_close(made(inputs), outputs)

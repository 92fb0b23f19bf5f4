"""Cutting networks into blocks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from torch import nn

from stillhouse.blocks.partition import Block, partition, rejoined
from stillhouse.foundation.errors import ModelError
from stillhouse.models.from_timm import build_timm, import_torchvision
from stillhouse.recipe.architectures import Granularity

TIMM = [
    "resnet18",
    "resnext50_32x4d",
    "vgg11",
    "vgg11_bn",
    "densenet121",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "regnetx_002",
    "regnety_002",
    "convnext_atto",
    "resnetv2_50",
    "seresnet50",
    "xception41",
    "inception_v3",
    "dpn68",
    "ghostnet_100",
    "mnasnet_100",
    "repvgg_a0",
    "dla34",
    "res2net50_26w_4s",
    "cspresnet50",
    "nfnet_l0",
    "mixnet_s",
    "rexnet_100",
    "resnest14d",
    "skresnet18",
    "selecsls42b",
    "vovnet39a",
    "tinynet_e",
    "mobileone_s0",
    "edgenext_xx_small",
    "starnet_s1",
    "hrnet_w18_small",
    "vit_tiny_patch16_224",
]
TORCHVISION = [
    "resnet18",
    "vgg11",
    "vgg11_bn",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "regnet_x_400mf",
    "convnext_tiny",
    "googlenet",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "alexnet",
    "swin_t",
]
QUICK = ("resnet18", "mobilenetv2_100", "vgg11_bn")


def conv(width: int, wide: int, **options: Any) -> list[nn.Module]:
    return [nn.Conv2d(width, wide, 3, padding=1, bias=False, **options), nn.BatchNorm2d(wide), nn.ReLU()]


def names(blocks: tuple[Block, ...]) -> list[str]:
    return [each.name for each in blocks]


def check_whole(network: nn.Module, inputs: torch.Tensor) -> None:
    """At every granularity: the same outputs, every parameter in one block, no block that ends before its norm."""
    network.eval()
    with torch.no_grad():
        expected = network(inputs)
    counts = []
    for granularity in get_args(Granularity):
        blocks = partition(network, inputs, granularity)
        with torch.no_grad():
            torch.testing.assert_close(rejoined(blocks)(inputs), expected, rtol=1e-5, atol=1e-6)
        held = [id(each) for block in blocks for module in (block.lead, block.core) for each in module.parameters()]
        assert sorted(held) == sorted({id(each) for each in network.parameters()})
        assert len(set(names(blocks))) == len(blocks) and all(names(blocks))
        for block, after in pairwise(blocks):
            with torch.no_grad():
                entry = after.lead(torch.zeros(2, *block.out_shape))
            assert tuple(entry.shape[1:]) == after.in_shape
        counts.append(len(blocks))
    assert counts == sorted(counts, reverse=True) and counts[-1] > 1


@pytest.mark.parametrize("name", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in TIMM])
def test_timm_is_cut_and_rejoined(name: str) -> None:
    """A family of timm gives what it gave, however finely it is cut."""
    px = 224 if "224" in name else 96
    check_whole(build_timm(name, {}, 3, 10), torch.randn(2, 3, px, px))


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_is_cut_and_rejoined(name: str) -> None:
    """A family of torchvision gives what it gave, however finely it is cut."""
    import_torchvision()
    from torchvision import models

    options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    network = getattr(models, name)(weights=None, num_classes=10, **options)
    check_whole(network, torch.randn(2, 3, 96, 96))


def test_blocks_are_what_the_author_built_it_of() -> None:
    """A ResNet's blocks are its residual blocks, by its own names; a stage ends where the resolution falls."""
    network = build_timm("resnet18", {}, 3, 10)
    found = partition(network, torch.randn(2, 3, 64, 64), "block")
    assert names(found) == ["conv1", *(f"layer{stage}.{number}" for stage in range(1, 5) for number in range(2)), "fc"]
    assert found[1].lead(torch.zeros(1, 64, 32, 32)).shape == (1, 64, 16, 16), "the pooling before it stays"
    assert names(partition(network, torch.randn(2, 3, 64, 64), "stage"))[1:] == [
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "fc",
    ]


def test_a_block_ends_behind_its_activation() -> None:
    """Nothing is cut between a convolution and its norm or activation; which activation it was is told."""
    network = nn.Sequential(
        *conv(3, 8), nn.Dropout(0.1), *conv(8, 8), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.LazyLinear(2)
    )
    network(torch.zeros(2, 3, 8, 8))
    found = partition(network, torch.randn(2, 3, 8, 8), "layer")
    assert [type(each.activation) for each in found] == [nn.ReLU, nn.ReLU, type(None), type(None)]
    assert [each.out_shape for each in found] == [(8, 8, 8), (8, 8, 8), (4, 8, 8), (2,)]


def test_named_modules_end_blocks() -> None:
    """Names in a recipe say where blocks end; one that can't, and one that is not there, are told."""
    network, inputs = build_timm("resnet18", {}, 3, 10), torch.randn(2, 3, 64, 64)
    assert names(partition(network, inputs, ("layer1", "layer3.0"))) == ["conv1", "layer2.0.conv1", "layer3.1.conv1"]
    with pytest.raises(ModelError, match="no module 'layer9'"):
        partition(network, inputs, ("layer9",))
    with pytest.raises(ModelError, match=r"can't be cut behind 'layer1.0.conv1'"):
        partition(network, inputs, ("layer1.0.conv1",))
    with pytest.raises(ModelError, match=r"behind 'layer1', and so does one behind 'layer1.1': name one of them"):
        partition(network, inputs, ("layer3", "layer1.1", "layer1"))


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenetv2_100", "densenet121"])
@pytest.mark.parametrize("by", get_args(Granularity))
def test_cuts_can_be_named(name: str, by: Granularity) -> None:
    """The module behind which a block is said to end is what a recipe may call that cut."""
    network, inputs = build_timm(name, {}, 3, 10), torch.randn(2, 3, 64, 64)
    found = partition(network, inputs, by)
    again = partition(network, inputs, tuple(each.end for each in found[:-1]))
    assert [(each.name, each.out_shape) for each in again] == [(each.name, each.out_shape) for each in found]


class InPlace(nn.Module):
    """Begins by writing into what it gets; as a module of torch, or one that nobody knows."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act, self.conv, self.bn = act, nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.bn(self.conv(self.act(inputs)))


class Hidden(nn.Module):
    """Writes without saying so; too wild for a trace."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.mul_(1 if self.training else 2)


@pytest.mark.parametrize("by", ["layer", "block"])
def test_no_block_writes_into_what_goes_in(by: str) -> None:
    """Where an operation writes into an activation, no block begins with it; where that can't be known before, it is
    told: several learn from that activation.
    """
    inputs = torch.randn(2, 3, 8, 8)

    def network(make: Callable[[], nn.Module]) -> nn.Module:
        parts = [*conv(3, 4), InPlace(make()), InPlace(make()), *conv(4, 4), nn.Flatten(), nn.Linear(256, 2)]
        return nn.Sequential(*parts).eval()

    found = partition(network(lambda: nn.SiLU(inplace=True)), inputs, by)
    for block in found:
        entry = block.lead(inputs)
        before = entry.clone()
        inputs = block.core(entry)
        assert torch.equal(entry, before)
    with pytest.raises(ModelError, match=r"begins by writing into what goes in.*not in-place"):
        partition(network(Hidden), torch.randn(2, 3, 8, 8), by)


class Odd(nn.Module):
    """Asks for what a trace can't know."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(*conv(channels, 4)), nn.Sequential(*conv(4, 4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = self.first(inputs)
        return self.second(inputs) if inputs.mean() > -1 else inputs


class Shared(nn.Module):
    """Uses one convolution at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.third(self.first(self.second(self.first(inputs).relu()).relu()).relu())


class Adding(nn.Module):
    """Writes into what a convolution put out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.bias = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(inputs).add_(self.bias))


class Woven(nn.Module):
    """Two tensors are alive from its beginning to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.left(inputs) * self.right(inputs)


class Twofold(nn.Module):
    """Takes two tensors."""

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return one + other


def test_what_can_not_be_traced_is_one_node_or_told() -> None:
    """A module that decides by values is taken whole inside a network; a network that does is refused in words."""
    inner = nn.Sequential(*conv(3, 3), Odd(), *conv(4, 4))
    found = partition(inner, torch.randn(2, 3, 8, 8), "layer")
    assert names(found) == ["0", "3", "4"]
    assert [list(each.closed) for each in found] == [[], ["3"], []] and "control flow" in found[1].closed["3"]
    with pytest.raises(ModelError, match=r"Odd: its forward can't be traced: .*control flow"):
        partition(Odd(), torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("make", "story"),
    [
        (Twofold, "takes several inputs"),
        (lambda: nn.Sequential(nn.Conv2d(4, 4, 1)), "can't be cut: it has one layer with weights$"),
        (lambda: nn.Sequential(nn.ReLU(), nn.Flatten()), "can't be cut: it has no layer with weights$"),
        (Woven, "can't be cut: everywhere inside more than one tensor is alive$"),
        (lambda: nn.Sequential(*conv(4, 4), *conv(4, 4)), "can't be cut: no stage ends inside it; cut finer, by layer"),
        (lambda: nn.Sequential(Odd(4)), "can't be cut: it has one .*; could not be looked into: 0: .*control flow"),
    ],
)
def test_networks_without_blocks_are_refused(make: Callable[[], nn.Module], story: str) -> None:
    """Several inputs, nothing to cut: each is said in words, with what could not be looked into."""
    with pytest.raises(ModelError, match=story):
        partition(make(), torch.randn(2, 4, 8, 8), "stage")


def test_shared_weights_are_never_split() -> None:
    """Two uses of one convolution are in one block; where that is all, the network can't be cut, and that is said."""
    with pytest.raises(ModelError, match="one of its parts has all weights, or they share them"):
        partition(nn.Sequential(*[nn.Conv2d(4, 4, 1)] * 2), torch.randn(2, 4, 8, 8), "layer")
    found = partition(Shared(), torch.randn(2, 4, 8, 8), "layer")
    assert names(found) == ["first", "third"]


def test_what_is_written_into_is_no_end() -> None:
    """A tensor that the next operation changes in place is not handed from one block to the next."""
    first, second = partition(Adding(), torch.randn(2, 4, 8, 8), "layer")
    inputs = torch.randn(2, *second.in_shape)
    before = inputs.clone()
    second.core(inputs)
    assert torch.equal(inputs, before) and "bias" in dict(first.core.named_parameters())


@pytest.mark.parametrize("training", [True, False])
def test_a_network_is_left_as_it_was(training: bool) -> None:
    """Cutting changes neither mode, weights nor statistics of a network, and its blocks share its modules."""
    network = build_timm("resnet18", {}, 3, 10).train(training)
    before = copy.deepcopy(network.state_dict())
    found = partition(network, torch.randn(2, 3, 64, 64))
    assert network.training is training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert found[1].core.get_submodule("layer1.0.conv1") is network.get_submodule("layer1.0.conv1")

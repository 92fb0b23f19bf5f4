"""A teacher with some blocks replaced, as one network: built from a recipe's words, its norms folded where it is done.

A mix names what stands for each block, front to back; ``keep`` is the teacher's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stillhouse.blocks.graph import traced
from stillhouse.blocks.library.offers import KINDS, offers
from stillhouse.blocks.partition import Block, partition
from stillhouse.foundation.errors import ModelError, nearest
from stillhouse.models.build import build
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.recipe.architectures import BLOCKWISE, BlockwiseOptions, Cut, ModelSection, Normalisation
from stillhouse.recipe.engines import AUTO

KEEP: Final = "keep"


def build_any(section: ModelSection, interface: Interface, statistics: Normalisation, seed: int, role: str) -> Network:
    """As :func:`stillhouse.models.build.build`, of blockwise students too.

    Raises:
        ModelError: it can't be built; names the role, the architecture and the mend.
    """
    if section.arch != BLOCKWISE:
        return build(section, interface, statistics, seed, role)
    options = BlockwiseOptions.model_validate(section.options)
    if not isinstance(options.of, ModelSection):
        raise ModelError(f"{role} model: a blockwise student is known once its run has chosen it")
    return converted(build(options.of, interface, statistics, seed, role), interface, options, seed)


def converted(network: Network, interface: Interface, options: BlockwiseOptions, seed: int) -> Network:
    """A network with blocks replaced as the options say; what is replaced begins with initial weights.

    Args:
        network: taken to pieces: the result shares its modules.
        options: where ``mix`` is auto every block is kept.
        seed: of initial weights.

    Raises:
        ModelError: it can't be cut so, or its blocks are not those that the mix was made for.
    """
    assert options.blocks != AUTO
    blocks = cut(network, interface, options.blocks)
    mix = (KEEP,) * len(blocks) if options.mix == AUTO else options.mix
    if len(mix) != len(blocks):
        raise ModelError(f"the network has {len(blocks)} blocks, and {len(mix)} are named: was its code changed?")
    cores = [replacement(block, name, seed) for block, name in zip(blocks, mix, strict=True)]
    made = Network(network.preprocess, joined(blocks, cores))
    return folded(made, interface) if options.folded else made


def forgetful(network: Network, seed: int) -> Network:
    """The same network with the initial weights of its layers, as their classes draw them.

    Args:
        network: changed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for module in network.body.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return network


def unforgettable(network: Network) -> list[str]:
    """Names of parameters that no layer draws anew: :func:`forgetful` leaves them as they are."""
    drawn = {
        id(each)
        for module in network.body.modules()
        if callable(getattr(module, "reset_parameters", None))
        for each in module.parameters(recurse=False)
    }
    return [name for name, each in network.body.named_parameters() if id(each) not in drawn]


def cut(network: Network, interface: Interface, by: Cut) -> tuple[Block, ...]:
    """The blocks of a network's body; they share its modules.

    Raises:
        ModelError: see :func:`stillhouse.blocks.partition.partition`.
    """
    return partition(network.body, probe(network, interface), by)


def probe(network: Network, interface: Interface) -> torch.Tensor:
    """Two samples of noise as a network's body would get them, always the same."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        noise = torch.randn(2, *interface.shape)
        noise = (noise * 64 + 128).clamp(0, 255).to(torch.uint8) if interface.image else noise
        inputs: torch.Tensor = network.preprocess(noise.to(network.device))
    return inputs


def replacement(block: Block, name: str, seed: int) -> nn.Module:
    """What the library calls so, for a block, with its initial weights; or the block's own core.

    Raises:
        ModelError: the library offers nothing of that name for it.
    """
    if name == KEEP:
        return block.core
    kinds = [kind for kind in KINDS if kind == name.partition("-")[0]]
    made = [each.module for each in offers(block, seed, kinds) if each.name == name]
    if not made:
        known = [KEEP, *(each.name for each in offers(block, seed))]
        raise ModelError(f"block {block.name} has no replacement '{name}': {nearest(name, known)}")
    return made[0]


def joined(blocks: Sequence[Block], cores: Sequence[nn.Module]) -> nn.Sequential:
    """One module of other cores between a network's leads; its children are named as the blocks are, ``_`` for dots."""
    parts = OrderedDict[str, nn.Module]()
    for block, core in zip(blocks, cores, strict=True):
        whole: Mapping[str, nn.Module] = OrderedDict(lead=block.lead, core=core)
        parts[block.name.replace(".", "_")] = nn.Sequential(OrderedDict(whole))
    return nn.Sequential(parts)


def folded(network: Network, interface: Interface) -> Network:
    """The same network with batch norms folded into the convolutions before them; for inference only.

    Args:
        network: changed.
    """
    network.eval()
    found = traced(network.body, probe(network, interface))
    modules = dict(network.body.named_modules())
    calls = [str(node.target) for node in found.graph.nodes if node.op == "call_module"]
    for node in found.graph.nodes:
        name, norm = _pair(node, modules)
        if name and norm and calls.count(name) == calls.count(norm) == 1:
            convolution, batch_norm = modules[name], modules[norm]
            assert isinstance(convolution, nn.Conv2d) and isinstance(batch_norm, nn.BatchNorm2d)
            network.body.set_submodule(name, fuse_conv_bn_eval(convolution, batch_norm))
            # timm's norms hold their activation.
            after = [part for name in ("drop", "act") if (part := getattr(batch_norm, name, None)) is not None]
            network.body.set_submodule(norm, nn.Sequential(*after) if after else nn.Identity())
    return network.eval()


def _pair(node: fx.Node, modules: Mapping[str, nn.Module]) -> tuple[str, str]:
    """A convolution and the norm that alone reads it; empty names where it is none."""
    if node.op != "call_module" or type(modules.get(str(node.target))) is not nn.Conv2d or len(node.users) != 1:
        return "", ""
    user = next(iter(node.users))
    norm = modules.get(str(user.target)) if user.op == "call_module" else None
    known = type(norm) is nn.BatchNorm2d or type(norm).__name__ == "BatchNormAct2d"
    tracks = known and isinstance(getattr(norm, "running_mean", None), torch.Tensor)
    return (str(node.target), str(user.target)) if tracks else ("", "")

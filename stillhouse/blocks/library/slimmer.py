"""Fewer channels inside a block: between two convolutions those are kept that weigh most, with their weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from stillhouse.blocks.library.alternative import Alternative
from stillhouse.blocks.ops import is_finish, passes
from stillhouse.blocks.partition import Block


def offers(block: Block) -> Iterator[Alternative]:
    """``slimmer-2``, ``slimmer-4``: so many times fewer channels inside."""
    for factor in (2, 4):
        made = copy.deepcopy(block.core)
        stretches = list(_stretches(made))
        for each in stretches:
            _slim(made, each, factor)
        if stretches:
            yield Alternative(f"slimmer-{factor}", made)


@dataclass(frozen=True)
class _Stretch:
    """A convolution, what handles each of its channels alone, and the convolution that reads them; names."""

    writes: str
    between: tuple[str, ...]
    reads: str


def _stretches(core: nn.Module) -> Iterator[_Stretch]:
    if not isinstance(core, fx.GraphModule):
        return
    modules = dict(core.named_modules())
    calls = [str(node.target) for node in core.graph.nodes if node.op == "call_module"]
    for node in core.graph.nodes:
        if not _is_dense(node, modules):
            continue
        between: list[str] = []
        after = _only_user(node)
        while after is not None and _is_channelwise(after, modules):
            if after.op == "call_module":
                between.append(str(after.target))
            after = _only_user(after)
        names = [str(node.target), *between, str(after.target) if after is not None else ""]
        if (
            after is not None
            and _is_dense(after, modules)
            and all(calls.count(name) == 1 for name in _own(names, modules))
        ):
            yield _Stretch(names[0], tuple(between), names[-1])


def _own(names: list[str], modules: dict[str, nn.Module]) -> list[str]:
    """Those that have weights of their own: an activation may be used in many places."""
    return [name for name in names if any(True for _ in modules[name].parameters())]


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_dense(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op != "call_module":
        return False
    module = modules[str(node.target)]
    return type(module) is nn.Conv2d and module.groups == 1


def _is_channelwise(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if is_finish(node, modules) or passes(node, modules):
        module = modules[str(node.target)] if node.op == "call_module" else None
        return not isinstance(module, nn.GroupNorm | nn.LayerNorm)
    if node.op != "call_module":
        return False
    module = modules[str(node.target)]
    return type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels


def _slim(core: nn.Module, stretch: _Stretch, factor: int) -> None:
    writes, reads = core.get_submodule(stretch.writes), core.get_submodule(stretch.reads)
    assert isinstance(writes, nn.Conv2d) and isinstance(reads, nn.Conv2d)
    width = writes.out_channels
    weighs = writes.weight.detach().flatten(1).norm(dim=1) * reads.weight.detach().transpose(0, 1).flatten(1).norm(
        dim=1
    )
    for name in stretch.between:
        scale = getattr(core.get_submodule(name), "weight", None)
        if isinstance(scale, torch.Tensor) and len(scale) == width:
            weighs = weighs * scale.detach().flatten(1).norm(dim=1) if scale.ndim > 1 else weighs * scale.detach().abs()
    kept = weighs.argsort(descending=True)[: max(width // factor, 1)].sort().values
    _index(writes, 0, kept)
    writes.out_channels = len(kept)
    _index(reads, 1, kept)
    reads.in_channels = len(kept)
    for name in stretch.between:
        _keep_channels(core.get_submodule(name), width, kept)


def _index(module: nn.Module, dimension: int, kept: torch.Tensor) -> None:
    for name in ("weight", "bias"):
        tensor = getattr(module, name, None)
        if isinstance(tensor, nn.Parameter) and tensor.ndim > dimension:
            setattr(module, name, nn.Parameter(tensor.detach().index_select(dimension, kept).clone()))


def _keep_channels(module: nn.Module, width: int, kept: torch.Tensor) -> None:
    """Norms, learnt activations, depthwise convolutions: everything they hold for each channel."""
    for each in module.modules():
        for tensors in (each._parameters, each._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.ndim and len(tensor) == width:
                    chosen: Any = tensor.detach()[kept].clone()
                    tensors[name] = nn.Parameter(chosen) if isinstance(tensor, nn.Parameter) else chosen
        for name in ("num_features", "in_channels", "out_channels", "groups", "num_parameters"):
            if getattr(each, name, None) == width:
                setattr(each, name, len(kept))

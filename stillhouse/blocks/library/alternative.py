"""An alternative to a block, and how one is made by replacing convolutions in a copy of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from stillhouse.blocks.partition import Block


@dataclass(frozen=True)
class Alternative:
    """Something that may stand in a block's place.

    Attributes:
        name: its kind, and its size where there are several: ``low_rank-4``.
        module: ready to be trained; weights of the block's own where it starts from these.
    """

    name: str
    module: nn.Module


def convolutions(core: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    """Plain convolutions over all channels, by name. Subclasses may do more than convolve: these are left alone."""
    for name, module in core.named_modules():
        if type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros":
            yield name, module


def substituted(core: nn.Module, make: Callable[[nn.Conv2d], nn.Module | None]) -> nn.Module | None:
    """A copy of a block's core with some convolutions replaced; None if there are none to replace.

    Args:
        make: a convolution -> what stands in its place, or None to keep it.
    """
    made = copy.deepcopy(core)
    new = {name: found for name, module in convolutions(made) if (found := make(module)) is not None}
    for name, module in new.items():
        made.set_submodule(name, module)
    return made if new else None


def like(convolution: nn.Conv2d, width: int, wide: int, groups: int = 1) -> nn.Conv2d:
    """A convolution from ``width`` to ``wide`` channels, without a bias, that looks and steps as another one does."""
    form: dict[str, Any] = {
        name: getattr(convolution, name) for name in ("kernel_size", "stride", "padding", "dilation")
    }
    return nn.Conv2d(width, wide, **form, groups=groups, bias=False)


def spatial(convolution: nn.Conv2d) -> bool:
    """Whether it looks at more than one place at a time."""
    return max(convolution.kernel_size) > 1


def depthwise(convolution: nn.Conv2d, block: Block) -> nn.Module:
    """A convolution of each channel alone, with its padding done before it where a block's images are below 3x3.

    There, in bf16 on a CPU, the gradient of its weights comes a hundred times sooner so.
    """
    tiny = any(min(shape[1:], default=3) < 3 for shape in (block.in_shape, block.out_shape))
    if not tiny or isinstance(convolution.padding, str):
        return convolution
    height, width = convolution.padding
    convolution.padding = (0, 0)
    return nn.Sequential(nn.ZeroPad2d((width, width, height, height)), convolution)

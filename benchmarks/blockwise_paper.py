"""The algorithm of the paper, one block after another on one device, by a careful hand (arXiv 2012.03096, its code).

A block is a 3x3 convolution; what stands for it is two [depthwise 3x3, pointwise 1x1, ReLU] without norms; input and
target are the convolution's own, for which the teacher runs up to it at every step, in fp32. Mean squared error,
RMSprop at 2e-3, 0.96 times that every 3,000 steps. At last all are put in and the whole learns from labels.
Careful: channels-last, no more of the teacher than is needed, no gradients for it, one call for all of an optimiser's
tensors, and the loss of ours, whose gradient keeps the layout.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.blockwise_task import Task
from stillhouse.data.batch import Batch
from stillhouse.students.losses import squared_error

RATE, DECAY, DECAY_STEPS = 2e-3, 0.96, 3000


class Paper:
    """One conversion; :meth:`blocks`, then :meth:`whole`."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._made = {name: _replacement(each) for name, each in convolutions(task.teacher)}

    def blocks(self) -> None:
        """Train every replacement, one after another."""
        for name, convolution in convolutions(self._task.teacher):
            self._train(convolution, self._made[name])

    def whole(self) -> None:
        """Put them in, and fine-tune all of it."""
        network = copy.deepcopy(self._task.teacher).requires_grad_(True).train()
        for name, each in self._made.items():
            network.set_submodule(name, each)
        optimizer = torch.optim.RMSprop(network.parameters(), lr=RATE, alpha=0.9, foreach=True)
        for batch in self._task.batches[: self._task.tuning]:
            F.cross_entropy(network(batch.inputs), batch.targets).backward()
            optimizer.step()
            optimizer.zero_grad()

    def _train(self, convolution: nn.Conv2d, made: nn.Module) -> None:
        optimizer = torch.optim.RMSprop(made.parameters(), lr=RATE, alpha=0.9, foreach=True)
        for step, batch in enumerate(self._task.batches):
            inputs, target = self._reached(convolution, batch)
            for group in optimizer.param_groups:
                group["lr"] = RATE * DECAY ** (step / DECAY_STEPS)
            (squared_error(made(inputs), target) / target.numel()).backward()
            optimizer.step()
            optimizer.zero_grad()

    def _reached(self, convolution: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """What goes into a convolution of the teacher and what comes out; nothing behind it is run."""
        found: list[Tensor] = []

        def stop(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            found.extend((inputs[0], output))
            raise _Reached

        hook = convolution.register_forward_hook(stop)
        with torch.no_grad(), contextlib.suppress(_Reached):  # raised where it got far enough
            self._task.teacher(batch.inputs)
        hook.remove()
        return found[0], found[1]


class _Reached(Exception):
    pass


def convolutions(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    """The 3x3 convolutions, by name."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            yield name, module


def _replacement(convolution: nn.Conv2d) -> nn.Module:
    width, wide = convolution.in_channels, convolution.out_channels
    layers = [
        nn.Conv2d(width, width, 3, convolution.stride[0], 1, groups=width),
        nn.Conv2d(width, wide, 1),
        nn.ReLU(),
        nn.Conv2d(wide, wide, 3, 1, 1, groups=wide),
        nn.Conv2d(wide, wide, 1),
        nn.ReLU(),
    ]
    made = nn.Sequential(*layers)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

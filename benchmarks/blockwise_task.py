"""What is converted block by block: two networks of the paper's depth, and batches of CIFAR-10 (JPEG).

VGG16's own thirteen convolutions; a ResNet with as many residual blocks as ResNet50 has, sixteen, of a width that two
cores manage. Weights are random, norms fit the data: enough for throughput. Batches are decoded, augmented and
normalised before any clock starts, on all sides: who reads them once for each block pays nothing for that here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.bench_online import SEED, STATISTICS, cifar_job
from stillhouse.blocks.norms import recalibrate
from stillhouse.blocks.partition import Block, partition
from stillhouse.data.batch import Batch
from stillhouse.models.zoo import resnet
from stillhouse.models.zoo.parts import conv_norm, initialise
from stillhouse.recipe.architectures import ResNetOptions

CPU = torch.device("cpu")
CLASSES = 10


@dataclass(frozen=True)
class Task:
    """A teacher and what its replacements learn from.

    Attributes:
        teacher: in evaluation mode, channels-last, without gradients.
        blocks: of it, front to back.
        batches: normalised inputs [B, 3, 32, 32], channels-last; each side trains every block on all of them.
        load_s: that making one of them took.
    """

    name: str
    words: str
    teacher: nn.Module
    blocks: Sequence[Block]
    batches: Sequence[Batch]
    load_s: float

    def shortened(self, steps: int) -> Task:
        """Fewer batches."""
        return replace(self, batches=self.batches[:steps])

    def halved(self) -> Task:
        """Batches of half the size."""
        return replace(self, batches=[_half(each) for each in self.batches])

    @property
    def tuning(self) -> int:
        """On how many of them the whole is fine-tuned, afterwards.

        A third: by the paper's logs fine-tuning took 6 % of the time of all blocks one after another, which is about
        what it takes so.
        """
        return max(len(self.batches) // 3, 1)

    @property
    def samples(self) -> int:
        """That every block sees."""
        return sum(len(each) for each in self.batches)


def tasks(batch_size: int, steps: int) -> list[Task]:
    """The VGG and the ResNet."""
    batches, load_s = _batches(batch_size, steps)
    made = []
    for name, (words, build) in NETWORKS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            teacher = build()
        for module in teacher.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)  # a residual branch that starts at zero has nothing to learn
        teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        recalibrate(teacher, [batches[0].inputs])
        blocks = partition(teacher.requires_grad_(False), batches[0].inputs[:2], "layer")
        made.append(Task(name, words, teacher, blocks, batches, load_s))
    return made


def vgg16() -> nn.Module:
    """VGG16 with batch norm and one linear layer: 14.7 M parameters, 313 M multiply-adds on 32x32."""
    layers: list[nn.Module] = []
    inputs = 3
    for stage, (width, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        layers += [nn.MaxPool2d(2)] if stage else []
        for _ in range(count):
            layers += [conv_norm(inputs, width, 3), nn.ReLU()]
            inputs = width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))
    initialise(network)
    return network


def resnet34() -> nn.Module:
    """ResNet34's sixteen blocks at half its width: 5.3 M parameters, 290 M multiply-adds on 32x32."""
    return resnet.build(ResNetOptions(width=32, blocks=(3, 4, 6, 3)), 3, (32, 32), CLASSES)


NETWORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "vgg": ("VGG16", vgg16),
    "resnet": ("ResNet34 of half the width", resnet34),
}


def _batches(batch_size: int, steps: int) -> tuple[list[Batch], float]:
    """So many, and the seconds that one took."""
    with tempfile.TemporaryDirectory() as folder:
        job = cifar_job(Path(folder), batch_size * steps)
        stream = replace(job, batch_size=batch_size).stream(None)
    (mean,), (std,) = STATISTICS.mean, STATISTICS.std
    begun = time.perf_counter()
    made = [
        replace(each, inputs=((each.inputs / 255 - mean) / std).contiguous(memory_format=torch.channels_last))
        for each in stream.batches(0, steps)
    ]
    return made, (time.perf_counter() - begun) / steps


def _half(batch: Batch) -> Batch:
    size = len(batch) // 2
    return Batch(batch.sample_ids[:size], batch.views[:size], batch.inputs[:size], batch.targets[:size])

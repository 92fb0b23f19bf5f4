"""What the house costs: our whole distillation loop against the plain online-KD loop a careful person writes.

Same teacher and student, fp32, same batch, same augmentation, same optimiser. Ours has keys, seeded views, the
knowledge protocol, the loss guard and events; the rival has a shuffled index, a vectorised crop and flip on the whole
batch, teacher forward without gradients, KD + cross-entropy, step. Both run in a process that keeps freed memory.
Decoding is done before the clock starts, evaluation and checkpoints are left out, on both sides. Random images suffice.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.harness import Claim, compare, quick, tell
from stillhouse.data.decode import Form
from stillhouse.data.order import Order
from stillhouse.data.stream import Stream
from stillhouse.data.table import Table
from stillhouse.foundation.allocator import keep_freed_memory
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.source import Answerer, AskedRows, UnstoredSource
from stillhouse.models.build import build
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.placement import fixed_numerics
from stillhouse.recipe.architectures import ModelSection, Normalisation
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.recipe.recipe import AugmentSection
from stillhouse.recipe.train import TrainSection
from stillhouse.students.fit import FitContext, fit
from stillhouse.students.objective import Objective
from stillhouse.teachers.engine import Teacher

BATCH = 128
CPU = torch.device("cpu")
STATISTICS = Normalisation(mean=(0.5,), std=(0.25,))
DEFINITION = "samples a second of the whole inline KD loop, fp32: ours / plain loop with vectorised crop and flip"


def network(interface: Interface, width: int, blocks: list[int]) -> Network:
    """A ResNet of the zoo."""
    section = ModelSection(arch="resnet", options={"width": width, "blocks": blocks})
    return build(section, interface, STATISTICS, 0, "benchmark")


def measure(claim: str, shape: tuple[int, int, int], teacher: tuple[int, list[int]], steps: int, rounds: int) -> Claim:
    """One size of job."""
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 256, (steps * BATCH, *shape), dtype=np.uint8)
    labels = generator.integers(0, 10, len(rows))
    interface = Interface(shape, True, 10)
    width = teacher[0] // 2
    models = [(network(interface, *teacher), network(interface, width, [1] * len(teacher[1]))) for _ in range(2)]
    settings = TrainSection(epochs=1, batch_size=BATCH, warmup_epochs=0)

    def ours() -> float:
        objective = Objective(ObjectiveSection())
        order = Order(np.arange(len(rows)), 0, None)
        augment = AugmentSection(pad_px=shape[1] // 8, flip=True)
        table = Table(rows, Form(shape, True), np.array([], np.int64), ())
        stream = Stream(table, labels, order, batch_size=BATCH, seed=0, augment=augment, crop_px=None)
        engine = Teacher(models[0][0], objective.ask, CPU, TeacherEngineSection(batch_size=BATCH))
        context = FitContext("benchmark", 0, CPU, emit=lambda event: None)
        begun = time.perf_counter()
        with fixed_numerics(torch.get_num_threads()):
            codec = Codec(engine.ask, Encoding(), 10, {})
            source = UnstoredSource(engine.ask, codec, AskedRows(Answerer(engine.answer, BATCH), codec))
            fit(models[0][1], source, stream, objective, settings, context)
        return len(rows) / (time.perf_counter() - begun)

    def rival() -> float:
        begun = time.perf_counter()
        plain_loop(*models[1], torch.from_numpy(rows), torch.from_numpy(labels), shape[1] // 8)
        return len(rows) / (time.perf_counter() - begun)

    ours(), rival()
    return compare(claim, DEFINITION, "samples/s", ours, rival, rounds)


def plain_loop(teacher: nn.Module, student: nn.Module, images: torch.Tensor, labels: torch.Tensor, pad: int) -> None:
    """Online KD as a careful person writes it."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(images) // BATCH)
    teacher.eval().requires_grad_(False)
    student.train()
    size = images.shape[2]
    for indices in torch.randperm(len(images)).split(BATCH):
        padded = F.pad(images[indices], (pad, pad, pad, pad))
        windows = padded.unfold(2, size, 1).unfold(3, size, 1)
        top, left = torch.randint(0, 2 * pad + 1, (2, len(indices)))
        batch = windows[torch.arange(len(indices)), :, top, left]
        batch = torch.where(torch.rand(len(indices), 1, 1, 1) < 0.5, batch.flip(3), batch)
        with torch.no_grad():
            soft = F.log_softmax(teacher(batch) / 4, dim=1)
        logits = student(batch)
        loss = 0.9 * 16 * F.kl_div(F.log_softmax(logits / 4, dim=1), soft, reduction="batchmean", log_target=True)
        loss = loss + 0.1 * F.cross_entropy(logits, labels[indices])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    short = quick()
    keep_freed_memory()
    rounds = 3 if short else 11
    found = [
        measure("loop_vs_plain_8px", (1, 8, 8), (24, [2, 2]), 30 if short else 60, rounds),
        measure("loop_vs_plain_32px", (3, 32, 32), (32, [2, 2, 2]), 4 if short else 12, rounds),
    ]
    tell("loop", found, write=not short)

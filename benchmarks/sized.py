"""A teacher that costs so many times what its student costs, found by trying a few."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.bench_online import Job, kd_loss
from stillhouse.knowledge.ask import Ask
from stillhouse.models.placement import autocast
from stillhouse.recipe.architectures import ModelSection
from stillhouse.teachers.engine import Teacher

WIDTHS, BLOCKS = (32, 40, 48), ((1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2), (2, 2, 3), (2, 3, 3), (3, 3, 3))


@dataclass(frozen=True)
class Cost:
    """A teacher, its seconds a view on one thread, and those of the student's step."""

    model: ModelSection
    view_s: float
    step_view_s: float

    @property
    def share(self) -> float:
        """How many steps an answer costs."""
        return self.view_s / self.step_view_s


def sized(job: Job, costs: Sequence[float], rounds: int) -> list[Cost]:
    """For each of ``costs`` the ResNet whose answer takes nearest to so many times a step of the job's student."""
    step = _step(job)
    for _ in range(3):
        step()
    tried = [
        _cost(job, ModelSection(arch="resnet", options={"width": width, "blocks": list(blocks)}), step, 3)
        for width, blocks in itertools.product(WIDTHS, BLOCKS)
    ]
    found = []
    for cost in costs:
        near = sorted(tried, key=lambda each: abs(each.share - cost))[:4]
        again = [_cost(job, each.model, step, rounds) for each in near]
        found.append(min(again, key=lambda each: abs(each.share - cost)))
    return found


def _cost(job: Job, model: ModelSection, step: Callable[[], None], rounds: int) -> Cost:
    answer = _answer(replace(job, teacher=model))
    answer()
    readings = [(_seconds(answer), _seconds(step)) for _ in range(rounds)]
    answers, steps = (statistics.median(each) / job.batch_size for each in zip(*readings, strict=True))
    return Cost(model, answers, steps)


def _answer(job: Job) -> Callable[[], object]:
    engine = Teacher(job.network(job.teacher), Ask(), torch.device(job.device), job.teacher_engine)
    batch = next(iter(job.stream(1).batches(0, 1)))
    return lambda: engine.answer(batch)


def _step(job: Job) -> Callable[[], None]:
    """A bare training step, as of the loop."""
    student = job.network(job.student).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = next(iter(job.stream(1).batches(0, 1)))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    known = torch.randn(len(batch), job.classes)

    def step() -> None:
        with autocast(job.student_engine.precision, torch.device(job.device)):
            logits = student(batch.inputs.contiguous(memory_format=torch.channels_last))
        kd_loss(logits.float(), known, batch.targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _seconds(work: Callable[[], object]) -> float:
    """Of processor time, so that a machine that others use gives the same answer."""
    begun = time.process_time()
    work()
    return time.process_time() - begun

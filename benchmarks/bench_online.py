"""The teacher is free: whole distillation loops against online KD, and against the student alone.

CIFAR-10 (JPEG), crop + flip, a ResNet teacher of 106 MMAC, a ResNet student of three basic blocks, batch 128; on a GPU
timm's resnext101_32x16d -> resnet50 at 224 px, batch 256, on random images and weights, which suffice for throughput.
Every loop runs in a process of its own and takes turns with the others; samples are decoded before the clock starts,
compiling is over, evaluation and checkpoints are left out, on all sides. Freed memory is kept on all sides.

    plain     online KD as most write it: fp32, eager, a torch DataLoader with torchvision's transforms, a worker for
              every second core
    careful   the same loop by a careful hand: bf16, channels-last, compiled (the teacher frozen), our views
    alone     our loop with the student alone, no teacher at all
    first     our loop, every view asked of the teacher and written to the store
    later     our loop, every view read from the store

Ours use the engines that ``auto`` finds on this machine before the clock starts.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.harness import Claim, claim_of, quick, tell
from benchmarks.turns import Contestant, Pace
from stillhouse.data.ahead import ahead
from stillhouse.data.decode import Form
from stillhouse.data.open import open_data, survey
from stillhouse.data.order import Order
from stillhouse.data.stream import Stream
from stillhouse.data.table import Table
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.source import Answerer, AskedRows, KnowledgeSource, NoKnowledge
from stillhouse.knowledge.stored import StoredSource
from stillhouse.knowledge.writer import Writer
from stillhouse.models.build import build
from stillhouse.models.compiled import compiled
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.placement import autocast, fixed_numerics
from stillhouse.recipe.architectures import ModelSection, Normalisation
from stillhouse.recipe.engines import StepEngineSection, TeacherEngineSection
from stillhouse.recipe.load import load
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.recipe.recipe import AugmentSection
from stillhouse.recipe.train import TrainSection
from stillhouse.store.label_store import open_store
from stillhouse.store.manifest import Identity
from stillhouse.students.fit import FitContext, fit
from stillhouse.students.objective import LABELS_ONLY, Objective
from stillhouse.students.trial import choose_step_engine
from stillhouse.teachers.engine import Teacher
from stillhouse.teachers.trial import choose_teacher_engine

RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10-small.yaml"
STATISTICS = Normalisation(mean=(0.5,), std=(0.25,))
SEED = 0
LONG = 10_000_000
AHEAD = 8 * 2**20


@dataclass(frozen=True)
class Job:
    """What is distilled. ``images`` and ``labels`` are .npy files."""

    images: str
    labels: str
    store: str
    classes: int
    crop_px: tuple[int, int] | None
    pad_px: int
    batch_size: int
    teacher: ModelSection
    student: ModelSection
    device: str
    teacher_engine: TeacherEngineSection
    student_engine: StepEngineSection

    @property
    def interface(self) -> Interface:
        """Of the views."""
        shape = np.load(self.images, mmap_mode="r").shape[1:]
        return Interface((shape[0], *(self.crop_px or shape[1:])), True, self.classes)

    def network(self, section: ModelSection) -> Network:
        """A network with random weights, on the device."""
        return build(section, self.interface, STATISTICS, SEED, "benchmark").to(self.device)

    def stream(self, views: int | None) -> Stream:
        """Training batches."""
        rows, labels = np.load(self.images), np.load(self.labels)
        table = Table(rows, Form(rows.shape[1:], True), np.array([], np.int64), ())
        order = Order(np.arange(len(rows)), SEED, views)
        augment = AugmentSection(pad_px=self.pad_px, flip=True)
        return Stream(
            table, labels, order, batch_size=self.batch_size, seed=SEED, augment=augment, crop_px=self.crop_px
        )


def alone(pace: Pace, job: Job) -> None:
    """Our loop without any teacher."""
    train(pace, job, NoKnowledge(), LABELS_ONLY, job.stream(1))


def first(pace: Pace, job: Job) -> None:
    """Our loop over views that nobody was ever asked about."""
    source = stored(job, "first")
    train(pace, job, source, ObjectiveSection(), job.stream(None))


def later(pace: Pace, job: Job) -> None:
    """Our loop over views that were all answered in an earlier epoch."""
    source = stored(job, "later")
    stream = job.stream(1)
    ids = np.arange(len(np.load(job.labels, mmap_mode="r")))
    asked = (stream.make(part, np.zeros(len(part), np.int64)) for part in np.array_split(ids, len(ids) // 256))
    for _ in source.teach(asked):
        pass
    train(pace, job, source, ObjectiveSection(), stream)


def stored(job: Job, name: str) -> StoredSource:
    """A source with the teacher behind a store of its own."""
    objective = Objective(ObjectiveSection())
    codec = Codec(objective.ask, Encoding(), job.classes, {})
    samples = len(np.load(job.labels, mmap_mode="r"))
    identity = Identity(teacher={"name": name}, question={}, views={}, engine={})
    store = open_store(Path(job.store), identity, codec.fields, samples, None)
    engine = Teacher(job.network(job.teacher), objective.ask, torch.device(job.device), job.teacher_engine)
    teacher = Answerer(engine.answer, int(job.teacher_engine.batch_size))
    return StoredSource(objective.ask, codec, store, AskedRows(teacher, codec), Writer(store, refused))


def refused(error: Exception) -> None:
    """A benchmark without its store measures nothing."""
    raise error


def train(
    pace: Callable[[], int | None], job: Job, source: KnowledgeSource, objective: ObjectiveSection, stream: Stream
) -> None:
    """Our loop, up to the step after which ``pace`` returns a signal's number."""
    settings = TrainSection(epochs=10**6, batch_size=job.batch_size, warmup_epochs=0, engine=job.student_engine)
    context = FitContext(
        "benchmark",
        SEED,
        torch.device(job.device),
        emit=lambda event: None,
        interrupted=pace,
        ahead_max_bytes=AHEAD,
    )
    with fixed_numerics(torch.get_num_threads()):
        fit(job.network(job.student), source, stream, Objective(objective), settings, context)


def plain(pace: Pace, job: Job) -> None:
    """Online KD as most write it."""
    loader = torch.utils.data.DataLoader(
        Photos(job),
        job.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=max(1, (os.cpu_count() or 2) // 2),
        pin_memory=job.device != "cpu",
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    teacher, student = job.network(job.teacher).eval(), job.network(job.student).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    while True:
        for images, labels in loader:
            images, labels = images.to(job.device), labels.to(job.device)
            with torch.no_grad():
                answers = teacher(images)
            loss = kd_loss(student(images), answers, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            pace()


def careful(pace: Pace, job: Job) -> None:
    """Online KD by a careful hand: bf16, channels-last, compiled, our views."""
    stream, last = job.stream(None), torch.channels_last
    teacher = job.network(job.teacher).eval().requires_grad_(False)
    teacher.to(dtype=torch.bfloat16, memory_format=last)  # type: ignore[call-overload]
    student = job.network(job.student).train()
    student.to(memory_format=last)  # type: ignore[call-overload]
    answer, forward = compiled(teacher, frozen=True), compiled(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    device = torch.device(job.device)
    for batch in ahead(stream.batches(0, 10**9), AHEAD):
        inputs = batch.inputs.to(device, non_blocking=True).contiguous(memory_format=last)
        labels = batch.targets.to(device, non_blocking=True)
        with torch.no_grad():
            answers = answer(inputs)
        with autocast("bf16", device):
            logits = forward(inputs)
        loss = kd_loss(logits.float(), answers.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        pace()


def kd_loss(logits: torch.Tensor, answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """0.9 KD at temperature 4 + 0.1 cross-entropy, as ours."""
    log_ps, log_pt = F.log_softmax(logits / 4, dim=1), F.log_softmax(answers / 4, dim=1)
    soft = F.kl_div(log_ps, log_pt, reduction="batchmean", log_target=True)
    return 0.9 * 16 * soft + 0.1 * F.cross_entropy(logits, labels)


class Photos(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Decoded samples through torchvision's transforms, one at a time."""

    def __init__(self, job: Job) -> None:
        from stillhouse.models.from_timm import import_torchvision

        import_torchvision()
        from torchvision.transforms import v2

        self._rows, self._labels = torch.from_numpy(np.load(job.images)), np.load(job.labels).tolist()
        size = job.crop_px or tuple(self._rows.shape[2:])
        padding = job.pad_px or None
        self._transform = v2.Compose([v2.RandomCrop(size, padding=padding), v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return self._transform(self._rows[number]), self._labels[number]


LOOPS = {each.__name__: each for each in (plain, careful, alone, first, later)}
STEPS = {"plain": 30, "careful": 60, "alone": 120, "first": 60, "later": 120}
"""Steps of a stretch: each takes a few seconds."""

CLAIMS = {
    "first_vs_plain": ("first", "plain", "first epoch, store being filled / plain online KD, fp32"),
    "first_vs_careful": ("first", "careful", "first epoch, store being filled / careful online KD"),
    "later_vs_plain": ("later", "plain", "later epochs, from the store / plain online KD, fp32"),
    "later_vs_alone": ("later", "alone", "later epochs, from the store / the student alone, same engine"),
}


def cifar_job(folder: Path, samples: int) -> Job:
    """CIFAR-10 (JPEG) and the ResNets of the recipe."""
    recipe = load(RECIPE)
    found = survey(recipe.data, SEED)
    table = open_data(found, recipe.data, folder, lambda name, done, count: None).table
    assert isinstance(table, Table) and recipe.teacher.model is not None
    np.save(folder / "images.npy", table.rows[:samples])
    np.save(folder / "labels.npy", found.train.labels[:samples])
    models = recipe.teacher.model, recipe.student.model
    return _job(folder, found.classes, None, 4, 128, models, "cpu")


def photo_job(folder: Path, samples: int) -> Job:
    """Random photographs for timm's big networks, on a GPU."""
    generator = np.random.default_rng(SEED)
    np.save(folder / "images.npy", generator.integers(0, 256, (samples, 3, 256, 256), dtype=np.uint8))
    np.save(folder / "labels.npy", generator.integers(0, 1000, samples))
    models = ModelSection(arch="timm:resnext101_32x16d"), ModelSection(arch="timm:resnet50")
    return _job(folder, 1000, (224, 224), 0, 256, models, "cuda")


def _job(
    folder: Path,
    classes: int,
    crop_px: tuple[int, int] | None,
    pad_px: int,
    batch_size: int,
    models: tuple[ModelSection, ModelSection],
    device: str,
) -> Job:
    images, labels, stores = (str(folder / name) for name in ("images.npy", "labels.npy", "stores"))
    engines = TeacherEngineSection(), StepEngineSection()
    return Job(images, labels, stores, classes, crop_px, pad_px, batch_size, *models, device, *engines)


def with_engines(job: Job) -> Job:
    """The job with the engines that ``auto`` finds here for a long run."""
    device, stream = torch.device(job.device), job.stream(1)
    few = list(stream.batches(0, 4))
    objective = Objective(ObjectiveSection())
    teacher = job.network(job.teacher)
    wanted = TeacherEngineSection.model_validate(dict.fromkeys(TeacherEngineSection.model_fields, "auto"))
    inputs = torch.cat([batch.inputs for batch in few])[:512]
    answers = choose_teacher_engine(teacher, objective.ask, device, wanted, inputs, 1e-3, LONG, job.batch_size)
    engine = Teacher(teacher, objective.ask, device, TeacherEngineSection())
    known = [(batch, engine.answer(batch)) for batch in stream.batches(0, 10)]
    step = StepEngineSection.model_validate(dict.fromkeys(StepEngineSection.model_fields, "auto"))
    settings = TrainSection(epochs=1, batch_size=job.batch_size, warmup_epochs=0, engine=step)
    steps = choose_step_engine(
        lambda: job.network(job.student), lambda network: objective, known, settings, LONG // job.batch_size, device
    )
    for row in (*answers.table, *steps.table):
        print(row, file=sys.stderr)
    return replace(job, teacher_engine=answers.engine, student_engine=steps.engine)


def main(short: bool) -> None:
    """Measure and tell."""
    with tempfile.TemporaryDirectory() as name, fixed_numerics(torch.get_num_threads()):
        gpu = torch.cuda.is_available()
        samples = (2048 if gpu else 6400) if short else (8192 if gpu else 50_000)
        job = with_engines((photo_job if gpu else cifar_job)(Path(name), samples))
        rounds, steps = (3, dict.fromkeys(LOOPS, 10)) if short else (15, STEPS)
        arguments = {"job": job}
        threads = torch.get_num_threads()
        loops = {each: Contestant(LOOPS[each], steps[each], 5, threads, arguments) for each in LOOPS}
        rates: dict[str, list[float]] = {each: [] for each in loops}
        try:
            for number in range(rounds):
                for each in list(loops)[:: 1 if number % 2 else -1]:
                    rates[each].append(steps[each] * job.batch_size / loops[each].stretch_s())
        finally:
            for contestant in loops.values():
                contestant.end()
    claims: list[Claim] = []
    for claim, (ours, rival, words) in CLAIMS.items():
        definition = f"samples a second of the whole loop: {words}; engines {job.teacher_engine}, {job.student_engine}"
        claims.append(claim_of(claim, definition, "samples/s", rates[ours], rates[rival]))
    tell("online_gpu" if gpu else "online", claims, write=not short)


if __name__ == "__main__":
    main(quick())

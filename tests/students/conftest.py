"""A training so small that a test can stop it after every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stillhouse.data.decode import Form
from stillhouse.data.order import Order
from stillhouse.data.stream import Stream
from stillhouse.data.table import Table
from stillhouse.foundation.events import Event
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.source import Answerer, AskedRows, KnowledgeSource, NoKnowledge, UnstoredSource
from stillhouse.models.build import Interface, wrap
from stillhouse.models.network import Network
from stillhouse.models.taps import shapes
from stillhouse.recipe.architectures import Normalisation
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.recipe.recipe import AugmentSection
from stillhouse.recipe.train import TrainSection
from stillhouse.students.checkpoint import Checkpoints
from stillhouse.students.fit import FitContext, fit
from stillhouse.students.objective import Objective
from stillhouse.students.state import TrainingState
from stillhouse.teachers.engine import Teacher

CPU = torch.device("cpu")
SHAPE, CLASSES, SAMPLES = (2, 4, 4), 3, 24
INTERFACE = Interface(SHAPE, False, CLASSES)


class Body(nn.Module):
    """Convolution, optional batch norm and dropout, classifier; cut point ``features`` [width, 4, 4]."""

    def __init__(self, width: int, norm: bool, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(SHAPE[0], width, 3, padding=1), nn.BatchNorm2d(width) if norm else nn.Identity(), nn.Tanh()
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width * 16, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.dropout(self.features(inputs).flatten(1)))
        return logits


class Lab:
    """Makes trainings over 24 fixed samples; batches of 6, 4 steps an epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.state: TrainingState | None = None

    def network(self, seed: int = 1, width: int = 3, norm: bool = True, dropout: float = 0.0) -> Network:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return wrap(Body(width, norm, dropout), INTERFACE, Normalisation(mean=(0.0,), std=(1.0,)))

    def stream(self, batch_size: int = 6, poison: int | None = None) -> Stream:
        random = np.random.default_rng(0)
        rows = random.standard_normal((SAMPLES, *SHAPE)).astype(np.float32)
        if poison is not None:
            rows[poison] = np.nan
        labels = random.integers(0, CLASSES, SAMPLES)
        table = Table(rows, Form(SHAPE, image=False), np.empty(0, np.int64), ())
        order = Order(np.arange(SAMPLES), 3, None)
        none = AugmentSection()
        return Stream(table, labels, order, batch_size=batch_size, seed=0, augment=none, crop_px=None)

    def settings(self, **values: Any) -> TrainSection:
        defaults = {"epochs": 3, "batch_size": 6, "warmup_epochs": 1, "optimizer": {"kind": "sgd"}}
        return TrainSection.model_validate(defaults | values)

    def checkpoints(self, every_s: float = 0.0, keep: int = 2) -> Checkpoints:
        return Checkpoints(self.folder, "student", every_s, keep, self.events.append)

    def fit(
        self,
        network: Network,
        settings: TrainSection,
        section: ObjectiveSection | None = None,
        checkpoints: Checkpoints | None = None,
        stop_after: int | None = None,
        stream: Stream | None = None,
        listener: Callable[[Event], None] | None = None,
        **context: Any,
    ) -> Network:
        """Train; ``section``: distil by it from a fixed teacher; ``stop_after``: a signal comes at that step;
        ``context``: more fields of the context.
        """
        stream = stream or self.stream(settings.batch_size)
        teacher = self.network(seed=9, width=5).eval()
        section = section or ObjectiveSection(cross_entropy=1.0, kd=None)
        with torch.random.fork_rng():
            torch.manual_seed(4)
            objective = Objective(
                section,
                settings.label_smoothing,
                shapes(network, [each.student for each in section.features], INTERFACE),
                shapes(teacher, [each.teacher for each in section.features], INTERFACE),
            )
        asks = bool(objective.ask)
        engine = Teacher(teacher, objective.ask, CPU, TeacherEngineSection(batch_size=6))
        source: KnowledgeSource = NoKnowledge()
        if asks:
            told = shapes(teacher, engine.ask.features, INTERFACE)
            codec = Codec(engine.ask, Encoding(features="fp32"), CLASSES, told)
            source = UnstoredSource(engine.ask, codec, AskedRows(Answerer(engine.answer, 6), codec))
        steps_seen = 0

        def interrupted() -> int | None:
            nonlocal steps_seen
            steps_seen += 1
            return 2 if stop_after is not None and steps_seen == stop_after else None

        surroundings = FitContext(
            phase="student",
            seed=11,
            device=CPU,
            emit=listener or self.events.append,
            checkpoints=checkpoints,
            interrupted=interrupted,
            progress_every_s=0.0,
            **context,
        )
        try:
            with torch.random.fork_rng():
                return fit(network, source, stream, objective, settings, surroundings)
        finally:
            engine.close()

    def losses(self, name: str = "total") -> list[float]:
        """The losses told so far, one a step."""
        return [event.losses[name] for event in self.events if type(event).__name__ == "Progress"]  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny networks on several threads mostly wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def make_lab() -> Callable[[Path], Lab]:
    return Lab

"""The trial of a training's step: the real loop, a few steps with each engine, losses near those of fp32."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import Interrupted
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.build import wrap
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.trials import Chosen, Tried
from stillhouse.recipe.architectures import Normalisation
from stillhouse.recipe.engines import AUTO, StepEngineSection
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.recipe.train import TrainSection
from stillhouse.students import fit as fit_module
from stillhouse.students.objective import LABELS_ONLY, Objective
from stillhouse.students.trial import choose_step_engine

CPU = torch.device("cpu")
SHAPE, CLASSES, ROWS = (3, 6, 6), 4, 16
LONG = 10**7
EAGER = {"precision": AUTO, "channels_last": AUTO, "compile": False}


class Body(nn.Module):
    """Convolution and classifier; ``tamper`` makes another answer of the logits."""

    def __init__(self, tamper: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8 * 36, CLASSES)
        self.tamper = tamper

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(inputs).flatten(1))
        return self.tamper(logits)


class Deaf(torch.autograd.Function):
    """The identity, whose gradient is zero."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return torch.zeros_like(gradient)


def plain(logits: Tensor) -> Tensor:
    return logits


def slow_fp32(logits: Tensor) -> Tensor:
    time.sleep(0.01 * (logits.dtype == torch.float32))
    return logits


def in_bf16(what: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Something else happens in bf16, which is faster than fp32 here."""
    return lambda logits: what(logits) if logits.dtype == torch.bfloat16 else slow_fp32(logits)


def fail(logits: Tensor) -> Tensor:
    raise RuntimeError("no kernel for this type")


def batches(count: int = 5) -> list[tuple[Batch, Knowledge]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        targets = torch.randint(0, CLASSES, (ROWS,), generator=generator)
        noise = torch.randint(0, 100, (ROWS, *SHAPE), generator=generator)
        inputs = (noise + 40 * targets[:, None, None, None]).to(torch.uint8)
        keys = np.arange(ROWS)
        logits = torch.randn(ROWS, CLASSES, generator=generator)
        made.append((Batch(keys, keys, inputs, targets), Knowledge(keys, keys, logits)))
    return made


def choose(
    tamper: Callable[[Tensor], Tensor] = plain,
    section: ObjectiveSection = LABELS_ONLY,
    engine: dict[str, Any] = EAGER,
    steps: int = LONG,
    tell: Callable[[Tried], None] = lambda row: None,
    check: Callable[[], None] = lambda: None,
    **values: Any,
) -> Chosen[StepEngineSection]:
    def make() -> Network:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return wrap(Body(tamper), Interface(SHAPE, True, CLASSES), Normalisation(mean=(0.5,), std=(0.25,)))

    settings = TrainSection.model_validate({"batch_size": ROWS, "engine": engine} | values)
    return choose_step_engine(make, lambda network: Objective(section), batches(), settings, steps, CPU, tell, check)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_settled_step_is_not_tried() -> None:
    """Where nothing is automatic the engine is taken as it is, and no step is run."""
    assert choose(fail, engine={"precision": "bf16"}) == Chosen(StepEngineSection(precision="bf16"))


@pytest.mark.parametrize("section", [LABELS_ONLY, ObjectiveSection()], ids=["labels", "kd"])
@pytest.mark.parametrize(
    "optimizer",
    [{"kind": "sgd"}, {"kind": "sgd", "learning_rate": 1.0}, {"kind": "adamw"}],
    ids=["sgd", "wild", "adamw"],
)
def test_faithful_faster_step_is_taken(section: ObjectiveSection, optimizer: dict[str, Any]) -> None:
    """Where fp32 is slow and bf16 trains alike, bf16 is taken, for teachers and students, at any learning rate."""
    heard: list[Tried] = []
    chosen = choose(slow_fp32, section, tell=heard.append, optimizer=optimizer)
    assert chosen.engine.precision == "bf16" and chosen.engine.settled
    (best,) = [row for row in chosen.table if row.chosen]
    assert best.loss_error is not None and 0 < best.loss_error < 0.02
    assert best.samples_per_s is not None and best.first_call_s is not None and best.kl is None
    assert heard[-1] == best and len(chosen.table) == 4


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda logits: logits * 1.5, "losses differ from fp32"),
        (Deaf.apply, "losses differ from fp32"),
        (lambda logits: logits * float("nan"), "DivergedError"),
        (fail, "no kernel for this type"),
    ],
    ids=["wrong loss", "no gradient", "nan", "raising"],
)
def test_broken_precision_is_refused(what: Callable[[Tensor], Tensor], why: str) -> None:
    """A faster precision whose loss or gradient is wrong, not finite or not there is refused, and fp32 stays."""
    chosen = choose(in_bf16(what))
    assert chosen.engine.precision == "fp32"
    assert all(why in row.refused for row in chosen.table if row.label.startswith("bf16"))
    assert any(row.chosen for row in chosen.table)


def test_what_is_fixed_stays() -> None:
    """A fixed precision is kept where it is slower; what only served to compare is not chosen."""
    chosen = choose(lambda logits: logits, engine=EAGER | {"precision": "bf16"})
    assert chosen.engine.precision == "bf16"
    assert any("only to compare" in row.refused for row in chosen.table if row.label == "fp32")
    broken = choose(in_bf16(fail), engine=EAGER | {"precision": "bf16"})
    assert broken.engine == StepEngineSection(precision="bf16")


def test_short_training_is_not_tuned() -> None:
    """Where few steps are to be taken nothing but fp32 is run, and the table says why."""
    chosen = choose(engine={"precision": AUTO, "channels_last": AUTO, "compile": AUTO}, steps=40)
    assert chosen.engine == StepEngineSection()
    assert [row.label for row in chosen.table if row.samples_per_s] == ["fp32"]
    assert all(row.refused.startswith("not tried") for row in chosen.table if not row.samples_per_s)


def test_training_without_a_compiler_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that is missing is a refused row, not the run's end."""

    def missing(function: object) -> Callable[..., object]:
        def call(*inputs: object) -> object:
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found")

        return call

    monkeypatch.setattr(fit_module, "compiled", missing)
    chosen = choose(engine={"precision": AUTO, "compile": AUTO})
    assert chosen.engine.compile is False
    assert any("no working C++ compiler" in row.refused for row in chosen.table)


@pytest.mark.parametrize("place", [1, 7])
def test_a_trial_can_be_stopped_between_two_steps(cache: Path, place: int) -> None:
    """What the check raises ends the trial after the step at work; nothing is remembered of it."""
    checks, calls = 0, 0

    def count(logits: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return logits

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == place + 1:
            raise Interrupted("stopped", 2)

    with pytest.raises(Interrupted):
        choose(count, check=check)
    assert calls == place and not cache.exists()


def test_step_trial_leaves_no_trace() -> None:
    """The process's random state is afterwards as it was."""
    state = torch.get_rng_state()
    choose()
    assert torch.equal(torch.get_rng_state(), state)


def test_every_setting_of_the_training_is_tried_along() -> None:
    """Micro-batches, clipping, averages and smoothing are part of the steps that are timed."""
    chosen = choose(accumulate=4, clip_norm=1.0, ema_decay=0.9, label_smoothing=0.1)
    assert all(row.samples_per_s and row.loss_error != 0 for row in chosen.table)


def test_found_step_is_remembered() -> None:
    """A second training alike takes what was found and checks its losses; one that now strays is dropped."""
    first = choose(slow_fp32)
    second = choose(slow_fp32)
    assert second.remembered and second.engine == first.engine and len(second.table) == 1
    assert second.table[0].loss_error is not None
    assert not choose(slow_fp32, steps=1000).remembered
    dropped = choose(in_bf16(lambda logits: logits * 2))
    assert not dropped.remembered and dropped.engine.precision == "fp32"
    assert "remembered, but" in dropped.table[0].refused


@pytest.mark.slow
def test_long_training_compiles() -> None:
    """With steps without end a compiled step is tried through the real loop, and its losses compared."""
    chosen = choose(engine={"precision": AUTO, "channels_last": AUTO, "compile": AUTO}, steps=10**9)
    compiled = [row for row in chosen.table if "compiled" in row.label and row.samples_per_s]
    assert compiled and all(row.loss_error is not None and row.loss_error < 0.02 for row in compiled)

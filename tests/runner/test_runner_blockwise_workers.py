"""Several processes train a teacher's blocks: the weights are those of one alone, whatever dies."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commandline import SCRIPT

from stillhouse.blocks import schedule
from stillhouse.blocks.schedule import BlockTimes, Plan, Share
from stillhouse.cli.workers import as_overrides
from stillhouse.foundation.block_events import (
    BlocksMeasured,
    BlocksPlanned,
    BlockWorkersLost,
    PlanMeasured,
    ReplacementTrained,
)
from stillhouse.foundation.errors import Interrupted, RecipeError
from stillhouse.foundation.events import Event, PhaseStarted, Progress
from stillhouse.recipe.load import dump, validate
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.job import Job, sight_job
from stillhouse.runner.materials import Materials
from stillhouse.runner.run import resume, run

from .lessons import told
from .small_blocks import SMALL, TRAIN

PATIENCE_S = 180
STEPS = 24
KILLED = STEPS // 2

pytestmark = pytest.mark.usefixtures("not_drawn")


def shared(workers: int, train: Any = None) -> Recipe:
    """A run whose blocks are trained by so many processes, a checkpoint after each of 24 steps."""
    blockwise = {**SMALL["blockwise"], "train": {**TRAIN, "batch_size": 100, **(train or {})}}
    return validate(
        {**SMALL, "blockwise": blockwise, "fleet": {"block_workers": workers}, "checkpoint": {"every_s": 0}}
    )


def weights(folder: Path) -> dict[str, str]:
    """The digest of each replacement's weights, by block and name."""
    files = (folder / "weights" / "blocks").rglob("*.safetensors")
    return {f"{each.parent.name}/{each.stem}": hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process trains."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stillhouse.runner.run.write_report", lambda path: (path / "report.html").write_text("-"))
        run(shared(1), folder)
    return weights(folder)


def workers() -> list[int]:
    """Process ids of the workers that this process started."""
    command = ["pgrep", "-P", str(os.getpid()), "-f", "runner.blockwise.worker"]
    return sorted(map(int, subprocess.run(command, capture_output=True, text=True).stdout.split()))


def hurt(events: list[Event], how: signal.Signals, which: int) -> Callable[[Event], None]:
    """A listener that sends a signal to one of the workers in the middle of the first plan, once."""

    def hear(event: Event) -> None:
        events.append(event)
        plans = told(events, BlocksPlanned)
        if isinstance(event, ReplacementTrained) and event.step == KILLED and not hit and len(plans) == 1:
            hit.append(plans[0].workers[which].process_id)
            os.kill(hit[0], how)

    hit: list[int] = []
    return hear


def planned_so(monkeypatch: pytest.MonkeyPatch, relayed: bool, counts: Sequence[int], *cuts: tuple[int, int]) -> None:
    """Plan shares for so many workers each, whatever was measured; each begins at a block and an alternative of it."""

    def plan(blocks: Sequence[BlockTimes], workers: int, *more: Any, **options: Any) -> Plan:
        every = [(at, which) for at, each in enumerate(blocks) for which in range(len(each.train_s))]
        if sum(counts) > workers or not all(cut in every for cut in cuts):
            return schedule.plan(blocks, workers, *more, **options)
        made = []
        for begin, end, count in zip([(0, 0), *cuts], [*cuts, None], counts, strict=True):
            own = tuple(each for each in every if begin <= each and (end is None or each < end))
            made.append(Share(begin[0], own, end[0] if end else None, count, 1.0))
        return Plan(tuple(made), relayed, 1.0, 1.0)

    monkeypatch.setattr("stillhouse.runner.blockwise.crew.plan", plan)


SHARES: dict[str, tuple[bool, tuple[tuple[int, int], ...]]] = {
    "handed over at a block": (True, ((1, 0),)),
    "handed over within blocks": (True, ((0, 1), (1, 2))),
    "own prefix": (False, ((1, 0),)),
    "own prefix up to a part of a block": (False, ((1, 2),)),
}
FEW = ("handed over within blocks",)


@pytest.mark.parametrize(
    "plan", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in SHARES if name not in FEW)]
)
def test_who_trains_what_changes_no_bit(
    tmp_path: Path, alone: dict[str, str], plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations are handed on or computed again, blocks shared, pixels seen or sent: the same weights."""
    relayed, shares = SHARES[plan]
    count = len(shares) + 1
    planned_so(monkeypatch, relayed, [1] * count, *shares)
    if plan == "own prefix":

        def hidden(materials: Materials) -> Job:
            return replace(sight_job(materials), samples=None, source_digest="of other data")

        monkeypatch.setattr("stillhouse.runner.blockwise.crew.sight_job", hidden)
    events: list[Event] = []
    run(shared(count), tmp_path / "run", [events.append])
    assert weights(tmp_path / "run") == alone
    (planned,) = told(events, BlocksPlanned)
    assert len(planned.workers) == count and planned.relayed == relayed
    trained = [key for each in planned.workers for key in each.replacements]
    assert sorted("/".join(key) for key in trained) == sorted(alone)
    (measured,) = told(events, PlanMeasured)
    assert measured.planned_s == planned.step_s and measured.measured_s > 0
    progress = [each for each in told(events, Progress) if each.phase == "blocks"]
    assert progress[-1].step == STEPS and sum(each.samples for each in progress) == STEPS * 100
    assert {(each.block, each.replacement) for each in told(events, ReplacementTrained)} == set(trained)
    assert workers() == []


@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_worker_that_dies_costs_steps_and_nothing_else(
    tmp_path: Path, alone: dict[str, str], which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first or the second of two is killed on the way: a new plan, the newest checkpoints, the same weights."""
    planned_so(monkeypatch, True, [1, 1], (1, 0))
    events: list[Event] = []
    result = run(shared(2), tmp_path / "run", [hurt(events, signal.SIGKILL, which)])
    assert weights(tmp_path / "run") == alone
    (lost,) = told(events, BlockWorkersLost)
    assert lost.text == f"worker {which + 1} of 2: killed by SIGKILL" and lost.workers == 2
    first, second = told(events, BlocksPlanned)
    assert first.step == 0 < second.step
    use = result["blockwise"]["workers"]
    assert [each["step"] for each in use["plans"]] == [0, second.step] and use["lost"] == 1
    assert len(told(events, BlocksMeasured)) >= 2
    assert use["plans"][0]["measured_s"] is None and use["plans"][1]["measured_s"] > 0
    assert not list((tmp_path / "run" / "checkpoints").rglob("*.ckpt"))
    assert workers() == []


@pytest.mark.slow
def test_batches_are_shared_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two share each batch of the first block, until a signal stops all; then two share those of a part of the
    second: the weights are those of one process, which cuts its batches into as many parts.
    """
    parts = {"accumulate": 4}
    run(shared(1, parts), tmp_path / "alone")
    events, asked = list[Event](), list[Event]()

    def stop(event: Event) -> None:
        events.append(event)
        if isinstance(event, ReplacementTrained) and event.step == KILLED and not asked:
            asked.append(event)
            os.kill(os.getpid(), signal.SIGTERM)

    planned_so(monkeypatch, True, [2, 1], (1, 0))
    with pytest.raises(Interrupted, match="of blocks"):
        run(shared(3, parts), tmp_path / "run", [stop])
    planned_so(monkeypatch, True, [1, 2], (1, 1))
    resume(tmp_path / "run", [events.append])
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")
    first, second = told(events, BlocksPlanned)
    assert len(first.workers) == len(second.workers) == 3 and second.step > 0
    assert first.workers[0].replacements == first.workers[1].replacements
    assert workers() == []


@pytest.mark.slow
def test_whatever_a_step_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Residual blocks in bf16 and channels last, mixed views, averaged weights, every kind of replacement: the same."""
    train = {**TRAIN, "batch_size": 200, "ema_decay": 0.9, "clip_norm": 1.0}
    train["engine"] = {"precision": "bf16", "channels_last": True}
    library = ["separable", "inverted", "grouped", "low_rank", "slimmer", "shallower", "skip"]
    blockwise = {**SMALL["blockwise"], "blocks": "block", "library": library, "train": train, "cosine": 0.5}
    teacher = {"model": {"arch": "resnet", "options": {"width": 8, "blocks": [1, 1, 1]}}, "train": TRAIN}
    data = {**SMALL["data"], "augment": {"pad_px": 1, "mix": {"kind": "mixup"}}}
    changed = {**SMALL, "data": data, "teacher": teacher, "blockwise": blockwise, "checkpoint": {"every_s": 0.2}}
    planned_so(monkeypatch, True, [1, 1], (1, 2))
    events: list[Event] = []
    for count in (1, 2):
        recipe = validate({**changed, "fleet": {"block_workers": count}})
        run(recipe, tmp_path / f"run-{count}", [events.append])
    assert weights(tmp_path / "run-1") == weights(tmp_path / "run-2") != {}
    (planned,) = told(events, BlocksPlanned)
    assert len(planned.workers) == 2


@pytest.mark.slow
def test_workers_that_freeze_are_not_waited_for(
    tmp_path: Path, alone: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is stopped is never reported: after a while of silence all are ended, and begin again."""
    monkeypatch.setattr("stillhouse.runner.group.SILENT_S", 3.0)
    events: list[Event] = []
    run(shared(2), tmp_path / "run", [hurt(events, signal.SIGSTOP, 1)])
    assert weights(tmp_path / "run") == alone
    (lost,) = told(events, BlockWorkersLost)
    assert lost.text == "the workers fell silent in the middle of a step"
    assert workers() == []


@pytest.mark.slow
@pytest.mark.parametrize(("how", "goes_on"), [(signal.SIGTERM, 3), (signal.SIGKILL, 1)])
def test_a_run_that_ends_goes_on_with_any_number(
    tmp_path: Path, alone: dict[str, str], how: signal.Signals, goes_on: int
) -> None:
    """Stopped or killed, with its two workers: others go on from their checkpoints, to the same weights."""
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(dump(shared(2, {"epochs": 8})))
    expected = tmp_path / "expected"
    run(shared(1, {"epochs": 8}), expected)
    begun = subprocess.Popen([SCRIPT, "run", recipe, "--out", folder], stderr=subprocess.PIPE, text=True)
    reach(folder, KILLED)
    mates = subprocess.run(["pgrep", "-P", str(begun.pid)], capture_output=True, text=True).stdout.split()
    begun.send_signal(how)
    _, said = begun.communicate(timeout=PATIENCE_S)
    assert begun.returncode == (128 + how if how == signal.SIGTERM else -how), said
    assert len(mates) == 2
    until_s = time.monotonic() + PATIENCE_S
    while any(alive(int(pid)) for pid in mates):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    events: list[Event] = []
    resume(folder, [events.append], fleet=as_overrides(None, None, goes_on))
    assert weights(folder) == weights(expected)
    started = next(each for each in told(events, PhaseStarted) if each.phase == "blocks")
    assert started.step > 0


@pytest.mark.slow
def test_what_is_trained_is_not_trained_again(tmp_path: Path, alone: dict[str, str]) -> None:
    """Of all replacements but two the weights are there: workers train only these, and they come out the same."""
    folder = tmp_path / "run"
    run(shared(1), folder)
    missing = [("stage1", "separable-1"), ("stage2", "low_rank-4")]
    files = [folder / "weights" / "blocks" / block / f"{name}.safetensors" for block, name in missing]
    for each in (*files, folder / "weights" / "assembled.safetensors", folder / "result.json"):
        each.unlink()
    events: list[Event] = []
    resume(folder, [events.append], fleet=as_overrides(None, None, 2))
    assert weights(folder) == alone
    (planned,) = told(events, BlocksPlanned)
    assert sorted(key for each in planned.workers for key in each.replacements) == missing
    assert {(each.block, each.replacement) for each in told(events, ReplacementTrained)} == set(missing)


@pytest.mark.slow
def test_what_diverges_is_left_out_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replacements that diverge at a rate that is too high have the same stories, and others the same weights, with
    two workers as with one.
    """
    wild = {"optimizer": {"kind": "sgd", "learning_rate": 2.0}, "loss_ratio_max": 1.0}
    planned_so(monkeypatch, True, [1, 1], (1, 0))
    for count in (1, 2):
        recipe = shared(count, wild)
        assert recipe.blockwise is not None
        section = recipe.blockwise.model_copy(update={"calibrate_epochs": 0})
        run(recipe.model_copy(update={"blockwise": section}), tmp_path / f"run-{count}")
    stories = [json.loads((tmp_path / f"run-{count}" / "blocks" / "diverged.json").read_text()) for count in (1, 2)]
    one, two = ({(block, name): lines for block, name, lines in each} for each in stories)
    assert one and {key: len(lines) for key, lines in one.items()} == {key: len(lines) for key, lines in two.items()}
    assert weights(tmp_path / "run-1") == weights(tmp_path / "run-2") != {}


def test_workers_without_blocks_are_refused() -> None:
    """Who asks for workers that train blocks, where there are none, is told what else there is."""
    values = {key: value for key, value in SMALL.items() if key != "blockwise"}
    student = {"model": {"arch": "mlp"}, "train": TRAIN}
    with pytest.raises(RecipeError, match=r"fleet.block_workers: .* leave it at 1, or ask for fleet.students"):
        validate({**values, "student": student, "fleet": {"block_workers": 2}})


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def reach(folder: Path, step: int) -> None:
    """Wait until some replacement has a checkpoint of that step, or a later one."""
    until_s = time.monotonic() + PATIENCE_S
    while not any(int(each.stem[5:]) >= step for each in folder.glob("checkpoints/blocks/*/*/step-*.ckpt")):
        assert time.monotonic() < until_s
        time.sleep(0.02)

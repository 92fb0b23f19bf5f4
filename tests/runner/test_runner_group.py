"""Several students train together in processes of their own: the weights are those of one alone, whatever dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commandline import SCRIPT

from stillhouse.cli.workers import as_overrides
from stillhouse.foundation.events import CheckpointWritten, Evaluated, Event, GroupChanged, GroupMeasured, Progress
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.job import Job, sight_job
from stillhouse.runner.materials import Materials
from stillhouse.runner.run import resume, run
from stillhouse.runner.shares import pack_share

from .lessons import lesson, told, weights

PATIENCE_S = 120


def shared(
    labels: Path, students: Any = 2, source: str = "inline", engine: Any = None, mix: Any = None, **sections: Any
) -> Recipe:
    """A run of a convolution with batch norm, in four micro-batches a step, by so many students."""
    train: dict[str, Any] = {"epochs": 3, "batch_size": 240, "accumulate": 4, "ema_decay": 0.9, "clip_norm": 1.0}
    fleet = {"students": students, **sections.pop("fleet", {})}
    data = {"source": {"kind": "digits"}, "augment": {"pad_px": 1, "mix": mix}}
    train["engine"] = engine or {}
    return lesson(labels, source, "conv", {"batch_size": 24}, train, data=data, fleet=fleet, **sections)


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


@pytest.fixture(scope="module")
def looked_alone() -> list[Evaluated]:
    """What was seen of the student that one process trains; filled by ``alone``."""
    return []


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, looked_alone: list[Evaluated]) -> str:
    """The digest of the student that one process trains."""
    root, events = tmp_path_factory.mktemp("alone"), list[Event]()
    result = run(shared(root / "none", 1), root / "run", [events.append])
    looked_alone += looked(events)
    assert result["students"] is None
    return weights(result)


def looked(events: list[Event]) -> list[Evaluated]:
    """What was seen of the student on the way."""
    return [each for each in told(events, Evaluated) if each.phase == "student"]


def test_students_together_are_one_to_the_last_bit(
    tmp_path: Path, alone: str, looked_alone: list[Evaluated], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three students, of uneven shares, who see the data themselves, end in the weights of one; all is told as ever."""
    events, sent = list[Event](), list[bool]()

    def pack(*share: Any, pixels: bool) -> tuple[list[Any], bytes]:
        sent.append(pixels)
        return pack_share(*share, pixels=pixels)

    monkeypatch.setattr("stillhouse.runner.group.pack_share", pack)
    result = run(shared(tmp_path / "none", 3), tmp_path / "run", [events.append])
    assert [(each.kind, each.students) for each in told(events, GroupChanged)] == [("started", 3)]
    assert weights(result) == alone
    assert sent == [False] * 3 * 15
    assert result["students"] == {"together": 3, "course": [[0, 3]], "lost": 0}
    progress = [each for each in told(events, Progress) if each.phase == "student"]
    assert progress[-1].step == 15 and sum(each.samples for each in progress) == 15 * 240
    assert looked(events) == looked_alone and len(looked_alone) == 3
    assert students() == []


def members(events: list[Event]) -> list[int]:
    """Process ids of the students that started last."""
    return [pid for _, pid in told(events, GroupChanged)[-1].members]


def students() -> list[int]:
    """Process ids of the students that this process started, in the order of their start."""
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "runner.student"], capture_output=True, text=True)
    return sorted(map(int, found.stdout.split()))


def test_a_student_that_dies_costs_steps_and_nothing_else(
    tmp_path: Path, alone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two, who have pixels sent, is killed on the way: both begin again from the newest checkpoint, and end in
    the same weights. Each step's views are counted with it, however far ahead they were asked.
    """
    events: list[Event] = []

    def hidden(materials: Materials) -> Job:
        return replace(sight_job(materials), samples=None, source_digest="of other data")

    monkeypatch.setattr("stillhouse.runner.course.sight_job", hidden)

    def kill(event: Event) -> None:
        events.append(event)
        if isinstance(event, CheckpointWritten) and event.step == 6:
            os.kill(members(events)[1], signal.SIGKILL)

    result = run(shared(tmp_path / "labels", [1, 2], "stored"), tmp_path / "run", [kill])
    assert weights(result) == alone
    changes = told(events, GroupChanged)
    assert [each.kind for each in changes] == ["started", "lost", "started"]
    assert changes[1].text == "student 2 of 2: killed by SIGKILL" and changes[1].step >= changes[2].step >= 6
    measured = [each.students for each in told(events, GroupMeasured)]
    assert [each.process_id for each in measured[-1]] == [pid for _, pid in changes[2].members]
    assert [(each.state, each.step) for each in measured[-1]] == [("done", 15)] * 2
    progress = [each for each in told(events, Progress) if each.phase == "student"]
    assert all(each.counts["hits"] + each.counts["misses"] == each.samples for each in progress)
    assert result["students"] == {"together": 2, "course": [[0, 2]], "lost": 1}
    assert students() == []


VARIANTS: dict[str, dict[str, Any]] = {
    "features": {
        "source": "stored",
        "objective": {"features": [{"teacher": "stage2", "student": "stage2"}]},
        "mix": {"kind": "mixup"},
        "fleet": {"workers": 1, "threads": 1},
    },
    "compiled": {"engine": {"compile": True, "channels_last": True, "precision": "bf16"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_whatever_a_step_computes(tmp_path: Path, variant: str) -> None:
    """Features and mixed views, from a store that a fleet fills, and compiled engines: two students are one."""
    recipes = [shared(tmp_path / f"labels-{count}", count, **VARIANTS[variant]) for count in (1, 2)]
    alone, both = (weights(run(each, tmp_path / f"run-{number}")) for number, each in enumerate(recipes))
    assert alone == both


@pytest.mark.slow
def test_a_signal_stops_all_and_any_number_goes_on(tmp_path: Path, alone: str) -> None:
    """SIGTERM to the run stops its students after the same step, with a checkpoint; three others end what two began."""
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(dump(shared(tmp_path / "none", 2)))
    begun = subprocess.Popen([SCRIPT, "run", recipe, "--out", folder], stderr=subprocess.PIPE, text=True)
    reach(folder, 4)
    begun.send_signal(signal.SIGTERM)
    _, said = begun.communicate(timeout=PATIENCE_S)
    assert begun.returncode == 128 + signal.SIGTERM, said
    found = re.search(r"stopped at step (\d+) of 15 of student", said)
    assert found, said
    assert (folder / "checkpoints" / "student" / f"step-{int(found[1]):010d}.ckpt").exists()
    events: list[Event] = []
    assert weights(resume(folder, [events.append], fleet=as_overrides(None, (3, 3)))) == alone
    (started,) = told(events, GroupChanged)
    assert (started.students, started.step) == (3, int(found[1]))


@pytest.mark.slow
def test_students_that_freeze_are_not_waited_for(tmp_path: Path, alone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student that is stopped is never reported: after a while of silence all are ended, and begin again."""
    monkeypatch.setattr("stillhouse.runner.group.SILENT_S", 3.0)
    events: list[Event] = []

    def freeze(event: Event) -> None:
        events.append(event)
        if isinstance(event, CheckpointWritten) and event.step == 6:
            os.kill(members(events)[1], signal.SIGSTOP)

    result = run(shared(tmp_path / "none", 2), tmp_path / "run", [freeze])
    assert weights(result) == alone
    lost = [each for each in told(events, GroupChanged) if each.kind == "lost"]
    assert [each.text for each in lost] == ["the students fell silent in the middle of a step"]
    assert students() == []


@pytest.mark.slow
def test_nothing_outlives_a_killed_run(tmp_path: Path, alone: str) -> None:
    """SIGKILL to a run ends its students too; one alone goes on from its checkpoint to the same weights."""
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(dump(shared(tmp_path / "none", 2)))
    begun = subprocess.Popen([SCRIPT, "run", recipe, "--out", folder], stderr=subprocess.DEVNULL)
    reach(folder, 4)
    mates = subprocess.run(["pgrep", "-P", str(begun.pid)], capture_output=True, text=True).stdout.split()
    begun.kill()
    begun.wait()
    assert len(mates) == 2
    until_s = time.monotonic() + PATIENCE_S
    while any(alive(int(pid)) for pid in mates):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    result = resume(folder, fleet=as_overrides(None, (1, 1)))
    assert weights(result) == alone
    assert [number for _, number in result["students"]["course"]] == [2, 1]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def reach(folder: Path, step: int) -> None:
    """Wait until a run has a checkpoint of that step of its student, or a later one."""
    until_s = time.monotonic() + PATIENCE_S
    while not any(int(each.stem[5:]) >= step for each in folder.glob("checkpoints/student/step-*.ckpt")):
        assert time.monotonic() < until_s
        time.sleep(0.02)

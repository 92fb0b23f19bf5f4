"""Teachers in processes of their own: however they come, go, freeze and die, the student stays the same."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import SCRIPT, shell

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import FleetError, Interrupted
from stillhouse.foundation.events import CheckpointWritten, Event, FleetChanged, FleetMeasured, Warned
from stillhouse.foundation.history import read_events
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.joining import DOOR
from stillhouse.runner.own_pace import OwnPace
from stillhouse.runner.run import resume, run
from stillhouse.runner.teaching import Teaching

from .lessons import lesson, told, weights

PATIENCE_S = 120


def fleeting(labels: Path, source: str = "inline", workers: Any = 2, epochs: int = 8, **fleet: Any) -> Recipe:
    """A run of a few hundred small questions."""
    section = {"workers": workers, "threads": 1, "device": "cpu", **fleet}
    augmented = {"source": {"kind": "digits"}, "augment": {"pad_px": 1}}
    train = {"epochs": epochs, "batch_size": 120}
    return lesson(labels, source, "conv", {"batch_size": 24}, train, data=augmented, fleet=section)


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the same run with its teacher inline."""
    root = tmp_path_factory.mktemp("undisturbed")
    return weights(run(fleeting(root / "none", workers=0), root / "run"))


def children() -> list[str]:
    """Command lines of worker processes that this process started."""
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-fa", "runner.worker"], capture_output=True, text=True)
    return found.stdout.splitlines()


def joined(folder: Path) -> list[int]:
    """Process ids of the workers that joined a run so far."""
    events = [each for each in read_events(folder / "events.jsonl") if each["event"] == "FleetChanged"]
    return [each["facts"]["pid"] for each in events if each["kind"] == "joined"]


def disturbed(
    recipe: Recipe,
    folder: Path,
    disturb: Callable[[list[int]], None],
    enough: Callable[[list[Event]], bool] = lambda events: True,
) -> tuple[dict[str, Any], list[Event]]:
    """A run and its events; ``disturb`` is called in a thread with the workers' process ids, again when they change.

    The student takes its time, half a second a step, until there is ``enough``: a process that joins needs seconds.
    """
    events: list[Event] = []
    over, pids = threading.Event(), list[int]()

    def meddle() -> None:
        while not over.is_set():
            found = joined(folder)
            if found != pids:
                pids[:] = found
                disturb(list(pids))
            time.sleep(0.05)

    def dawdle(event: Event) -> None:
        events.append(event)
        if isinstance(event, CheckpointWritten) and not enough(events):
            time.sleep(0.5)

    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        return run(recipe, folder, [dawdle]), events
    finally:
        over.set()
        meddler.join()


def test_workers_answer_like_the_process_itself(tmp_path: Path, undisturbed: str) -> None:
    """Two workers give the student's very weights, are told in numbers, see the run's samples, and leave nothing."""
    events: list[Event] = []
    result = run(fleeting(tmp_path / "none"), tmp_path / "run", [events.append])
    assert weights(result) == undisturbed
    came = [each for each in told(events, FleetChanged) if each.kind == "joined"]
    assert [each.facts["reads"] for each in came] == ["mapped"] * len(came) and 1 <= len(came) <= 2
    assert {each.facts["pid"] for each in came}.isdisjoint({os.getpid()})
    assert result["fleet"]["workers_joined"] == len(came) and result["fleet"]["workers_lost"] == 0
    measured = told(events, FleetMeasured)
    assert [each.state for each in measured[0].workers] == ["loading", "loading"]
    assert sum(each.views for each in measured[-1].workers) + measured[-1].own_views >= 8 * 1200
    assert not (tmp_path / "run" / DOOR).exists()
    assert children() == []


def test_a_worker_that_dies_is_not_missed(tmp_path: Path, undisturbed: str) -> None:
    """A worker killed at work costs time and nothing else: its questions are asked again, another one is started."""
    killed: list[int] = []

    def kill(pids: list[int]) -> None:
        if not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    result, events = disturbed(fleeting(tmp_path / "none"), tmp_path / "run", kill)
    assert weights(result) == undisturbed
    assert killed and result["fleet"]["workers_lost"] == 1
    left = [each for each in told(events, FleetChanged) if each.kind == "left"]
    assert [each.text for each in left] == ["killed by SIGKILL"]


def test_a_signal_is_heard_while_a_teacher_is_waited_for(tmp_path: Path, undisturbed: str) -> None:
    """SIGTERM to a run whose only worker says nothing ends it with a checkpoint; going on gives the same weights."""
    frozen: list[int] = []

    def freeze(pids: list[int]) -> None:
        if not frozen:
            frozen.append(pids[0])
            os.kill(pids[0], signal.SIGSTOP)
            time.sleep(1.0)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="while waiting for a teacher, at step") as stop:
        disturbed(fleeting(tmp_path / "none", workers=1), tmp_path / "run", freeze)
    assert stop.value.exit_code == 128 + signal.SIGTERM and children() == []
    assert list((tmp_path / "run" / "checkpoints" / "student").glob("step-*"))
    assert weights(resume(tmp_path / "run")) == undisturbed


def test_a_student_that_can_t_answer_itself_leaves_it_to_workers(
    tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for the teacher beside the student: it is told once, the question goes back, and workers answer all."""

    def full(teaching: Teaching, batch: Batch) -> Knowledge:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB\nmore words")

    monkeypatch.setattr(OwnPace, "is_wanted", lambda pace, view, low: not pace.failed)
    monkeypatch.setattr(Teaching, "_answer", full)
    events: list[Event] = []
    assert weights(run(fleeting(tmp_path / "none", workers=1), tmp_path / "run", [events.append])) == undisturbed
    (warned,) = told(events, Warned)
    assert "9.00 GiB; if it shall, give it room" in warned.message
    assert told(events, FleetMeasured)[-1].own_views == 0


@pytest.mark.parametrize("what", ["stillhouse.runner.fleet.Gate", "stillhouse.runner.fleet.Driver.start"])
def test_a_fleet_that_can_t_begin_leaves_no_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Whatever fails before workers can be let in, nobody is left waiting at a door behind which nobody is."""
    before = open_files()

    def fail(*args: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(what, fail)
    with pytest.raises(MemoryError):
        run(fleeting(tmp_path / "none", workers=1), tmp_path / "run")
    assert not (tmp_path / "run" / DOOR).exists()
    gc.collect()  # the error's frames may hold the samples in a cycle
    assert not [each for each in open_files() - before if each.startswith(("socket:", "/memfd:stillhouse"))]


def open_files() -> set[str]:
    """What this process has open."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(each))
    return found


def test_a_full_store_starts_nobody(tmp_path: Path, undisturbed: str) -> None:
    """What workers answered is stored as ever; a second run reads it all, and starts no worker."""
    first = run(fleeting(tmp_path / "labels", "stored"), tmp_path / "first")
    events: list[Event] = []
    second = run(fleeting(tmp_path / "labels", "stored"), tmp_path / "second", [events.append])
    assert weights(first) == weights(second) == undisturbed
    assert first["store"]["misses"] == second["store"]["hits"] == 8 * 1200
    assert not told(events, FleetChanged)


@pytest.mark.slow
def test_a_worker_that_freezes_is_not_waited_for(tmp_path: Path, undisturbed: str) -> None:
    """A stopped worker says nothing and is never reported: its time runs out, and others take over."""
    frozen: list[int] = []

    def freeze(pids: list[int]) -> None:
        if len(pids) > 1 and not frozen:
            frozen.append(pids[0])
            os.kill(pids[0], signal.SIGSTOP)

    def suspect(events: list[Event]) -> bool:
        return any(each.kind == "suspect" for each in told(events, FleetChanged))

    result, events = disturbed(fleeting(tmp_path / "none"), tmp_path / "run", freeze, suspect)
    assert weights(result) == undisturbed
    assert frozen and suspect(events)
    assert children() == []


@pytest.mark.slow
def test_a_person_may_add_a_teacher_and_take_it_back(tmp_path: Path, undisturbed: str) -> None:
    """A worker joins from another shell, answers, leaves when asked to, and says so with exit code 0."""
    folder, helpers = tmp_path / "run", list[subprocess.Popen[str]]()
    command = [str(SCRIPT), "join", str(folder), "--set", "fleet.device=cpu"]

    def help_out(pids: list[int]) -> None:
        if not helpers:
            helpers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        elif helpers[0].pid in pids and helpers[0].poll() is None:
            helpers[0].send_signal(signal.SIGINT)

    def kinds(events: list[Event]) -> list[str]:
        return [each.kind for each in told(events, FleetChanged) if each.worker.startswith("joined-")]

    recipe = fleeting(tmp_path / "none", workers=1)
    result, events = disturbed(recipe, folder, help_out, lambda events: "left" in kinds(events))
    (helper,) = helpers
    _, words = helper.communicate(timeout=PATIENCE_S)
    assert weights(result) == undisturbed
    assert kinds(events) == ["joined", "leaving", "left"], words
    assert helper.returncode == 0 and result["fleet"]["workers_lost"] == 0


@pytest.mark.slow
def test_another_teacher_is_turned_away(tmp_path: Path) -> None:
    """A worker that would answer otherwise does not get in, is told what differs, and exits with code 2."""
    folder, told_to = tmp_path / "run", list[subprocess.CompletedProcess[str]]()
    command = [str(SCRIPT), "join", str(folder)]

    def intrude(pids: list[int]) -> None:
        if not told_to:
            changed = [*command, "--set", "fleet.device=cpu", "--set", "teacher.engine.channels_last=true"]
            told_to.append(subprocess.run(changed, capture_output=True, text=True, timeout=PATIENCE_S))

    recipe = fleeting(tmp_path / "none", workers=1)
    result, events = disturbed(recipe, folder, intrude, lambda events: bool(told_to))
    assert told_to[0].returncode == 2
    (told_here,) = [each.text for each in told(events, FleetChanged) if each.kind == "refused"]
    assert "engine.channels_last: False there, True here" in told_here
    assert result["fleet"]["workers_refused"] == 1 and not any("channels_last" in each for each in result["warnings"])
    assert "engine.channels_last: False there, True here" in told_to[0].stderr


NOWHERE: dict[str, Any] = {"device": "cuda", "patience_s": 0}


@pytest.mark.slow
@pytest.mark.parametrize("instead", ["inline", "hard_labels", "stop"])
def test_no_teacher_is_left(tmp_path: Path, undisturbed: str, instead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that can't load are not started for ever: the recipe says what becomes of the student, and it is told."""
    monkeypatch.setattr("stillhouse.runner.environment.resolve_device", lambda name, key: torch.device("cpu"))
    recipe = fleeting(tmp_path / "none", workers=1, without_teachers=instead, **NOWHERE)
    if instead == "stop":
        with pytest.raises(FleetError, match="no teacher is left") as refusal:
            run(recipe, tmp_path / "run")
        assert "fleet.device: cuda is not available" in str(refusal.value) and "stillhouse resume" in str(refusal.value)
        return
    events: list[Event] = []
    result = run(recipe, tmp_path / "run", [events.append])
    assert any("no teacher is left" in each.message for each in told(events, Warned))
    assert (weights(result) == undisturbed) == (instead == "inline")
    assert result["fleet"]["unanswered"] == (8 * 1200 if instead == "hard_labels" else 0)


@pytest.mark.slow
def test_a_killed_student_leaves_no_worker_and_goes_on(tmp_path: Path, undisturbed: str) -> None:
    """SIGKILL of the run: its workers end by themselves, and resume with another fleet gives the same weights."""
    path, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(dump(fleeting(tmp_path / "none")))
    begun = subprocess.Popen([str(SCRIPT), "run", str(path), "--out", str(folder)])
    deadline = time.monotonic() + PATIENCE_S
    pids: list[int] = []
    while not pids and time.monotonic() < deadline:
        time.sleep(0.02)
        pids = joined(folder)
    begun.kill()
    begun.wait()
    assert pids
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    if not (folder / "result.json").exists():
        assert shell("resume", folder, "--workers", 1).code == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["digests"]["student_weights"] == undisturbed
    assert result["fleet"]["workers_joined"] == len(joined(folder)), "what the killed process saw counts as well"

"""Asking a worker to leave: which are there, whom a signal may reach, and what is said of its place."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from commandline import Call, Said, refused, shell

from stillhouse.foundation.errors import RunDirError, UserError
from stillhouse.foundation.events import FleetChanged
from stillhouse.foundation.files import folder_lock
from stillhouse.recipe.load import dump, validate
from stillhouse.runner.joining import DOOR
from stillhouse.runner.leaving import ask_to_leave, workers_of
from stillhouse.runner.run import run as run_it

from ..cli.conftest import call as call  # the command line in this process
from .conftest import values
from .lessons import told, weights
from .test_runner_fleet import disturbed, fleeting

HELD = ExitStack()
BEGUN = {"event": "RunStarted", "process_id": 1, "resumed": False, "only_teach": False}


def changed(kind: str, worker: str, pid: int = 0, host: str | None = None) -> dict[str, Any]:
    facts = {"pid": pid, "host": host or platform.node(), "device": "cpu"} if kind == "joined" else {}
    return {"event": "FleetChanged", "kind": kind, "worker": worker, "text": "", "facts": facts, "ago_s": 0.0}


@pytest.fixture(autouse=True)
def _nobody_holds_on() -> Iterator[None]:
    """What this test's runs hold is let go."""
    with HELD:
        yield


def running(folder: Path, workers: Any, *events: dict[str, Any]) -> Path:
    """A run under way that told these events."""
    HELD.enter_context(folder_lock(folder))
    (folder / "recipe.yaml").write_text(dump(validate(values(fleet={"workers": workers}))))
    (folder / DOOR).write_text(json.dumps({"address": "/nowhere"}))
    (folder / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in events))
    return folder


@pytest.fixture(params=["stillhouse.runner.worker", "ray::TeacherActor"])
def stand_in(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a worker."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", request.param]) as process:
        yield process
        process.kill()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that got a worker's number."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_workers_of_this_process_of_the_run(tmp_path: Path) -> None:
    """Those that joined since the run was last taken up and have not left; who leaves, or is silent, is told apart."""
    run = running(
        tmp_path / "run", 2, BEGUN, changed("joined", "local-1", 11), BEGUN, changed("joined", "local-1", 21),
        changed("joined", "joined-2", 22, "elsewhere"), changed("joined", "local-3", 23), changed("suspect", "local-3"),
        changed("leaving", "local-3"), changed("joined", "local-4", 24), changed("left", "local-4"),
        changed("scaled", ""), changed("suspect", "local-1"), changed("trusted", "local-1"),
    )  # fmt: skip
    found = workers_of(run)
    assert [(each.name, each.process_id, each.here, each.leaving, each.suspect) for each in found] == [
        ("local-1", 21, True, False, False), ("joined-2", 22, False, False, False), ("local-3", 23, True, True, True)
    ]  # fmt: skip


def test_a_worker_gets_a_polite_signal(tmp_path: Path, stand_in: subprocess.Popen[bytes]) -> None:
    """SIGTERM reaches the process that the worker told, and no other worker's."""
    run = running(tmp_path / "run", 1, BEGUN, changed("joined", "local-1", stand_in.pid))
    ask_to_leave(run, "local-1")
    assert stand_in.wait(timeout=20) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("workers", "others", "words"),
    [
        (2, 1, "the run keeps 2 workers and will start another one in its place; for fewer: stop it, then"),
        (2, 2, "2 stay, as many as the run keeps: none is started in its place"),
        ([1, 3], 1, "1 stay; the run starts another one only if its students need it (up to 3)"),
        ([2, 4], 1, "--workers 1', or --workers 1-4"),
    ],
)
def test_what_becomes_of_its_place(
    tmp_path: Path, stand_in: subprocess.Popen[bytes], workers: Any, others: int, words: str
) -> None:
    """Whether another one is started follows from how many stay and how many the run keeps, whoever started them."""
    there = [changed("joined", f"local-{number}", 1) for number in range(2, 2 + others)]
    run = running(tmp_path / "run", workers, BEGUN, changed("joined", "local-1", stand_in.pid), *there)
    assert words in ask_to_leave(run, "local-1")


def test_who_is_not_asked(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    """No signal goes to another machine's process, to a number that another program has now, or twice."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run = running(
        tmp_path / "run", 2, BEGUN, changed("joined", "far", stranger.pid, "elsewhere"),
        changed("joined", "other", stranger.pid), changed("joined", "gone", gone.pid),
        changed("joined", "twice", stranger.pid), changed("leaving", "twice"),
    )  # fmt: skip
    for name, words in {
        "far": "end it there with .kill",
        "other": "is no worker",
        "gone": "is no worker",
        "twice": "is leaving already",
        "othre": "did you mean 'other'?",
    }.items():
        with pytest.raises(UserError, match=words):
            ask_to_leave(run, name)
    assert stranger.poll() is None


def test_a_run_without_a_fleet(tmp_path: Path) -> None:
    """Where nobody works there is nobody to leave."""
    run = running(tmp_path / "run", 2, BEGUN, changed("joined", "local-1", 1))
    (run / DOOR).unlink()
    with pytest.raises(RunDirError, match="has no fleet now"):
        workers_of(run)
    with pytest.raises(RunDirError, match="holds no run"):
        workers_of(tmp_path / "nowhere")


def test_a_killed_run_has_no_workers(tmp_path: Path) -> None:
    """What a killed run told last is not taken for workers that are there."""
    run = running(tmp_path / "run", 2, BEGUN, changed("joined", "local-1", 1))
    assert workers_of(run)
    HELD.close()
    with pytest.raises(RunDirError, match=r"the run was killed.*stillhouse resume"):
        workers_of(run)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_worker_is_asked_where_its_handle_can_t_be_had(
    tmp_path: Path, stand_in: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A sandbox that refuses handles of processes does not make a worker that lives a worker that is gone."""

    def refuse(process_id: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    run = running(tmp_path / "run", 1, BEGUN, changed("joined", "local-1", stand_in.pid))
    ask_to_leave(run, "local-1")
    assert stand_in.wait(timeout=20) == -signal.SIGTERM


def test_the_command(tmp_path: Path, stand_in: subprocess.Popen[bytes], call: Call) -> None:
    """Without a worker's name it lists them; a wrong one is exit code 2."""
    silent = changed("joined", "local-9", 99), changed("suspect", "local-9")
    run = running(tmp_path / "run", 1, BEGUN, changed("joined", "local-1", stand_in.pid), *silent)
    said = call("leave", run)
    assert said.code == 0 and said.out.startswith(f"local-1      process {stand_in.pid} on this machine, cpu\nlocal-9 ")
    assert "cpu, suspect: silent for too long\n2 workers" in said.out
    refused(call("leave", run, "local-2"), "has no worker 'local-2' now")
    said = call("leave", run, "local-1")
    assert said.code == 0 and said.out.startswith("local-1 finishes what it holds, and leaves; the run keeps 1 worker ")


@pytest.mark.slow
def test_a_worker_of_the_run_is_asked_to_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real worker finishes what it holds and is no loss; the student is the same; the run starts another one."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))
    folder, said = tmp_path / "run", list[Said]()

    def ask(pids: list[int]) -> None:
        if not said:
            said.append(shell("leave", folder, "local-1"))

    plain = run_it(fleeting(tmp_path / "none", workers=0, epochs=60), tmp_path / "plain")
    result, events = disturbed(fleeting(tmp_path / "none", workers=1, epochs=60), folder, ask)
    assert said[0].code == 0, said[0].err
    assert "the run keeps 1 worker and will start another one in its place" in said[0].out
    assert weights(result) == weights(plain)
    changes = [(each.kind, each.text) for each in told(events, FleetChanged) if each.worker == "local-1"]
    assert [kind for kind, _ in changes] == ["joined", "leaving", "left"] and changes[1][
        1
    ] == "asked to leave (SIGTERM)"
    assert any(each.kind == "scaled" and "1 started" in each.text for each in told(events, FleetChanged))
    assert result["fleet"]["workers_lost"] == 0

"""Real processes, really killed: the run ends in the same student, to the last bit."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.history import read_events
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import run

pytestmark = pytest.mark.slow

FORKED = Path(__file__).with_name("forked.py")
STILLHOUSE = Path(sys.executable).with_name("stillhouse")
PATIENCE_S = 120


def digest(folder: Path) -> str:
    found: str = json.loads((folder / "result.json").read_text())["digests"]["student_weights"]
    return found


@pytest.fixture
def recipe(tmp_path: Path, tiny: Callable[..., Recipe]) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump(tiny()))
    return path


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    command = [str(STILLHOUSE), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and everything that was said."""
    out, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out + errors


def told(folder: Path, event: str) -> int:
    """How often an event was told so far."""
    events = folder / "events.jsonl"
    return events.read_bytes().count(f'"{event}"'.encode()) if events.exists() else 0


def written(folder: Path) -> int:
    """Checkpoints told so far."""
    return told(folder, "CheckpointWritten")


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> bool:
    """Wait until something is so (true) or the process has ended (false)."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return False


@pytest.mark.parametrize("how", ["told", "half written", "written", "weights written"])
def test_sigkill_at_every_step(tmp_path: Path, recipe: Path, finished: Path, how: str) -> None:
    """Killed at every single step of teacher, student and control, and at every step of the end: the same bits."""
    folder = tmp_path / "run"
    command = [sys.executable, str(FORKED), str(recipe), str(folder), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["digest"] == digest(finished)
    assert found["kills"] >= (11 if how == "weights written" else 25), found
    assert found["leftovers"] == []
    steps = [event["step"] for event in read_events(folder / "events.jsonl") if event["event"] == "Progress"]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]


def test_sigkill_of_the_real_command_at_random_moments(tmp_path: Path, recipe: Path, finished: Path) -> None:
    """Six kills of 'stillhouse run' and 'resume', wherever they hit, change no bit of the student."""
    folder, kills, chance = tmp_path / "run", 0, random.Random(1)
    while kills < 6:
        process = start("resume", folder) if kills else start("run", recipe, "--out", folder)
        before = written(folder)
        if not wait_for(process, lambda before=before: written(folder) > before):  # type: ignore[misc]
            break
        time.sleep(chance.random() * 0.003)
        process.kill()
        finish(process)
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 5
    assert finish(start("resume", folder))[0] == 0
    assert digest(folder) == digest(finished)


@pytest.mark.parametrize("thing", ["student.json", "result.json"])
def test_sigkill_as_soon_as_a_file_appears(tmp_path: Path, recipe: Path, finished: Path, thing: str) -> None:
    """Killed the moment that one of the run's files appears, the run resumes to the same student."""
    folder = tmp_path / "run"
    process = start("run", recipe, "--out", folder)
    wait_for(process, (folder / thing).exists)
    process.kill()
    finish(process)
    code, said = finish(start("resume", folder))
    assert code == 0, said
    assert digest(folder) == digest(finished)
    assert (folder / "report.html").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_polite_signals(
    tmp_path: Path, tiny: Callable[..., Recipe], finished: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C and SIGTERM write a checkpoint although none is due, exit 130 and 143 in words, and resume exactly."""
    path, folder = tmp_path / "long.yaml", tmp_path / "run"
    teacher = tiny().teacher.model_dump(mode="json")
    teacher["train"]["epochs"] = 2000
    path.write_text(dump(tiny(teacher=teacher, checkpoint={"every_s": 3600})))
    process = start("run", path, "--out", folder)
    assert wait_for(process, lambda: told(folder, "PhaseStarted") == 1)
    process.send_signal(number)
    returned, said = finish(process)
    assert returned == code, said
    assert "stopped at step" in said and "Traceback" not in said
    (saved,) = [each for each in read_events(folder / "events.jsonl") if each["event"] == "CheckpointWritten"]
    process = start("resume", folder)
    assert wait_for(process, lambda: told(folder, "PhaseStarted") == 2)
    process.send_signal(number)
    assert finish(process)[0] == code
    again = [each for each in read_events(folder / "events.jsonl") if each["event"] == "PhaseStarted"]
    assert again[-1]["step"] == saved["step"] > 0


def test_interrupted_run_ends_in_the_same_bits(tmp_path: Path, recipe: Path, finished: Path) -> None:
    """A run stopped by Ctrl-C after its first checkpoint and resumed ends in the undisturbed run's student."""
    folder = tmp_path / "run"
    process = start("run", recipe, "--out", folder)
    wait_for(process, lambda: written(folder) > 0)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] in (130, 0)
    assert finish(start("resume", folder))[0] == 0
    assert digest(folder) == digest(finished)


def test_full_disk(tmp_path: Path, tiny: Callable[..., Recipe], not_drawn: None) -> None:
    """A disk that is full at a checkpoint: exit code 1 in words, the last checkpoint stays, and the resume is exact."""
    student = tiny().student.model_dump(mode="json")
    student["model"] = {"arch": "mlp", "options": {"hidden": [512]}}
    path, folder = tmp_path / "wide.yaml", tmp_path / "run"
    recipe = tiny(student=student, control={"seeds": 0})
    path.write_text(dump(recipe))
    whole = run(recipe, tmp_path / "whole")
    process = start("run", path, "--out", folder)
    wait_for(process, lambda: len(list((folder / "checkpoints" / "student").glob("*.ckpt"))) > 0)
    process.kill()
    finish(process)
    kept = {each: each.read_bytes() for each in (folder / "checkpoints" / "student").glob("*.ckpt")}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, said = finish(start("resume", folder, preexec_fn=limit))
    assert code == 1 and "could not write" in said and "Traceback" not in said, said
    assert kept and {each: each.read_bytes() for each in kept} == kept
    assert not list(folder.rglob(".*.part"))
    code, said = finish(start("resume", folder))
    assert code == 0, said
    assert digest(folder) == whole["digests"]["student_weights"]


def test_two_processes_on_one_run(tmp_path: Path, recipe: Path) -> None:
    """A second process on a run in work is refused with the first one's id, and does it no harm."""
    folder = tmp_path / "run"
    process = start("run", recipe, "--out", folder)
    wait_for(process, lambda: written(folder) > 0)
    os.kill(process.pid, signal.SIGSTOP)
    code, said = finish(start("resume", folder))
    os.kill(process.pid, signal.SIGCONT)
    assert code == 2 and f"in use by process {process.pid}" in said
    assert finish(process)[0] == 0

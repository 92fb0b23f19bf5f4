"""The flagship: workers and runs are killed, frozen, slowed, added and drained, and the student stays the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commandline import SCRIPT, refused, shell

from stillhouse.foundation.events import read_events
from stillhouse.recipe.load import dump
from stillhouse.runner.disturber import DOINGS
from stillhouse.runner.prey import WORKER, Prey, workers_of

from .lessons import digest
from .test_runner_fleet import fleeting

SLEEP = "import time; time.sleep(600)"


def test_only_workers_of_the_very_process_are_found() -> None:
    """Neither another child nor another's worker is taken for a worker of the run."""
    plain = subprocess.Popen([sys.executable, "-c", SLEEP])
    worker = subprocess.Popen([sys.executable, "-c", SLEEP, WORKER])
    try:
        deadline = time.monotonic() + 30.0
        while not (found := workers_of(os.getpid())):
            assert time.monotonic() < deadline
        assert list(found) == [worker.pid]
        assert workers_of(plain.pid) == {}
        found[worker.pid].signal(signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL and plain.poll() is None
        assert not found[worker.pid].alive and workers_of(os.getpid()) == {}
    finally:
        for process in (plain, worker):
            process.kill()
            process.wait()


def test_a_signal_does_not_reach_who_has_the_number_now() -> None:
    """What ended, or was let go of, gets no signal."""
    process = subprocess.Popen([sys.executable, "-c", SLEEP])
    ended, kept = Prey(process.pid, joined=True), Prey(process.pid, joined=True)
    ended.close()
    ended.signal(signal.SIGKILL)
    assert not ended.alive and kept.alive and process.poll() is None
    process.kill()
    process.wait()
    kept.signal(signal.SIGSTOP)
    assert not kept.alive and not kept.frozen
    kept.close()


def test_what_can_not_be_disturbed_is_refused(tmp_path: Path) -> None:
    """A folder with something in it, and a fleet that is not on this machine, are told in words."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: some\n")
    refused(shell("chaos", tmp_path / "none.yaml"), "none.yaml")
    whole = Path(__file__).parents[2] / "recipes" / "digits.yaml"
    refused(shell("chaos", whole, "--out", tmp_path), "not empty", "--out")
    refused(shell("chaos", whole, "--out", tmp_path / "new", "--set", "fleet.backend=ray"), "fleet.backend")


@pytest.mark.slow
def test_a_student_survives_everything(tmp_path: Path) -> None:
    """Two seeds, the second against the first one's undisturbed run: the same weights, all of it written down."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(fleeting(tmp_path / "none", workers=0, epochs=40)))
    words = ["chaos", str(recipe), "--every", "1.5", "--minutes", "0.4"]
    for seed, more in ((1, []), (2, ["--reference", str(tmp_path / "1" / "undisturbed")])):
        folder = tmp_path / str(seed)
        command = [str(SCRIPT), *words, "--seed", str(seed), "--out", str(folder), *more]
        said = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert said.returncode == 0 and "identical" in said.stdout, said.stdout + said.stderr
        assert digest(folder / "run") == digest(tmp_path / "1" / "undisturbed")
        done = [json.loads(line) for line in (folder / "run" / "chaos.jsonl").read_text().splitlines()]
        assert len(done) > 3 and {each["do"] for each in done} <= set(DOINGS)
        assert any(event["event"] == "FleetChanged" for event in read_events(folder / "run" / "events.jsonl"))
    assert not workers_of(os.getpid())


@pytest.mark.slow
def test_a_student_that_differs_is_told(tmp_path: Path) -> None:
    """Exit code 1 where the reference's student is another one: the comparison is a real one."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(fleeting(tmp_path / "none", workers=0, epochs=4)))
    assert shell("run", recipe, "--out", tmp_path / "other").code == 0
    path = tmp_path / "other" / "result.json"
    result = json.loads(path.read_text())
    result["digests"]["student_weights"] = "0" * 64
    path.write_text(json.dumps(result))
    said = shell("chaos", recipe, "--out", tmp_path / "chaos", "--reference", tmp_path / "other", "--minutes", "0")
    assert said.code == 1 and "the student's weights differ" in said.out, said

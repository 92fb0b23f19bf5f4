"""The flagship: workers and runs are killed, frozen, slowed, added and drained, and the student stays the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from commandline import SCRIPT, refused, shell

from stillhouse.foundation.errors import Interrupted
from stillhouse.foundation.history import read_events
from stillhouse.recipe.load import dump
from stillhouse.runner.disturber import DOINGS
from stillhouse.runner.grounds import RayCluster, is_worker
from stillhouse.runner.prey import Prey, children_of

from .lessons import digest
from .test_runner_fleet import fleeting

SLEEP = "import time; time.sleep(600)"


def workers_of(parent: int) -> dict[int, Prey]:
    return children_of(parent, "worker", is_worker)


def test_only_workers_of_the_very_process_are_found() -> None:
    """Neither another child nor another's worker is taken for a worker of the run."""
    plain = subprocess.Popen([sys.executable, "-c", SLEEP])
    worker = subprocess.Popen([sys.executable, "-c", SLEEP, "stillhouse.runner.worker"])
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
    ended, kept = Prey(process.pid, "worker"), Prey(process.pid, "worker")
    ended.close()
    ended.signal(signal.SIGKILL)
    assert not ended.alive and kept.alive and process.poll() is None
    process.kill()
    process.wait()
    kept.signal(signal.SIGSTOP)
    assert not kept.alive and not kept.frozen
    kept.close()


def test_a_node_is_harmed_as_a_whole() -> None:
    """What leads a group is frozen and killed with all of it; asked to end, it alone is asked."""
    below = f"child = subprocess.Popen([sys.executable, '-c', '{SLEEP}'])"
    code = f"import subprocess, sys; {below}; print(child.pid); {SLEEP}"
    leader = subprocess.Popen([sys.executable, "-uc", code], process_group=0, stdout=subprocess.PIPE, text=True)
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    node, lost = Prey(leader.pid, "node", group=True), Prey(child, "child")
    node.signal(signal.SIGSTOP)
    assert node.frozen and [status(pid) for pid in (leader.pid, child)] == ["T", "T"]
    node.signal(signal.SIGCONT)
    node.signal(signal.SIGTERM)
    assert leader.wait() == -signal.SIGTERM and lost.alive and not node.alive
    node.signal(signal.SIGKILL)
    assert lost.alive
    lost.signal(signal.SIGKILL)
    node.close()
    lost.close()
    leader.stdout.close()


def status(pid: int) -> str:
    """R, S, T: what the kernel says of a process, once it has had the time to stop."""
    time.sleep(0.2)
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_can_not_be_disturbed_is_refused(tmp_path: Path) -> None:
    """A recipe that is not there, and a folder with something in it, are told in words."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: some\n")
    refused(shell("chaos", tmp_path / "none.yaml"), "none.yaml")
    whole = Path(__file__).parents[2] / "recipes" / "digits.yaml"
    refused(shell("chaos", whole, "--out", tmp_path), "not empty", "--out")
    labels_alone = ("--set", "objective={kd: null, cross_entropy: 1}")
    refused(shell("chaos", whole, *labels_alone, "--out", tmp_path / "new"), "asks nothing of a teacher")


def test_a_cluster_that_is_not_wanted_any_more_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal while the head starts: its processes end, and nothing of it stays on the disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started: list[subprocess.Popen[bytes]] = []

    def start(*_: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", SLEEP], process_group=0))
        return started[0]

    def check() -> None:
        raise Interrupted("stopped", signal.SIGTERM)

    with pytest.raises(Interrupted):
        RayCluster(tmp_path / "run", start, fleeting(tmp_path / "none", backend="ray").fleet, tmp_path / "log", check)
    assert started[0].returncode == -signal.SIGKILL and not list(tmp_path.glob("ray-*"))


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


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif("STILLHOUSE_RAY_TESTS" not in os.environ, reason="takes a minute: STILLHOUSE_RAY_TESTS=1")
def test_a_student_survives_everything_on_ray(tmp_path: Path) -> None:
    """On a cluster of its own, of nodes that come and go, too: the same weights, and nothing of it is left."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(fleeting(tmp_path / "none", workers=0, epochs=30, backend="ray")))
    words = ["chaos", str(recipe), "--every", "0.7", "--minutes", "0.25", "--seed", "2", "--out", str(tmp_path / "1")]
    said = subprocess.run([str(SCRIPT), *words], capture_output=True, text=True, timeout=300)
    assert said.returncode == 0 and "identical" in said.stdout, said.stdout + said.stderr
    assert digest(tmp_path / "1" / "run") == digest(tmp_path / "1" / "undisturbed")
    assert (tmp_path / "1" / "run" / "chaos.jsonl").read_text()
    (temporary,) = set(re.findall(r"/\S*/ray-[^/\s]+", (tmp_path / "1" / "disturbed.log").read_text()))
    assert not Path(temporary).exists()
    assert temporary not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["undisturbed", "run"])
def test_a_signal_ends_all_that_was_started(tmp_path: Path, folder: str) -> None:
    """SIGTERM while either run goes on: exit code 143, and nothing of it is left at work."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(fleeting(tmp_path / "none", workers=0, epochs=1)))
    command = [str(SCRIPT), "chaos", str(recipe), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as chaos:
        while not (tmp_path / "out" / folder / "events.jsonl").exists():
            assert chaos.poll() is None
            time.sleep(0.02)
        started = children_of(chaos.pid, "run", lambda words: True)
        chaos.terminate()
        assert chaos.wait(30) == 143
    assert started and not any(each.alive for each in started.values())


@pytest.mark.slow
def test_a_student_that_differs_is_told(tmp_path: Path) -> None:
    """Exit code 1 where the reference's student is another one: the comparison is a real one."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(fleeting(tmp_path / "none", workers=0, epochs=1)))
    assert shell("run", recipe, "--out", tmp_path / "other").code == 0
    path = tmp_path / "other" / "result.json"
    result = json.loads(path.read_text())
    result["digests"]["student_weights"] = "0" * 64
    path.write_text(json.dumps(result))
    said = shell("chaos", recipe, "--out", tmp_path / "chaos", "--reference", tmp_path / "other", "--minutes", "0")
    assert said.code == 1 and "the student's weights differ" in said.out, said

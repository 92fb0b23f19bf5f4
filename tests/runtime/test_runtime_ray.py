"""What only a cluster can do: nodes that come and go, and actors that freeze."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import SCRIPT

from stillhouse.foundation.stamp import code_stamp
from stillhouse.runner.joining import DOOR
from stillhouse.runner.prey import children_of
from stillhouse.runtime.backend import Answer, Hello, Leaving, Left, Report
from stillhouse.runtime.work import Lease

from .acting import Role, prepare
from .stages import on_ray, unexpected

LOOKS = {"period_ms": 1000, "timeout_ms": 1000, "failure_threshold": 3}

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")


def gone(pid: int) -> None:
    """A process is no more, soon."""
    end_s = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_frozen_actor_is_ended() -> None:
    """An actor that was stopped by a signal hears nothing; dismissed, it has left soon all the same."""
    with on_ray(Role()) as stage:
        (worker,) = stage.ready()
        os.kill(worker.facts["pid"], signal.SIGSTOP)
        stage.backend.send(worker.worker, Lease("student", 0, 1), b"echo x")
        assert stage.backend.poll(0.5) == []
        stage.backend.dismiss(worker.worker, "frozen", kill=True)
        assert stage.left(worker.worker).why == "frozen"
        gone(worker.facts["pid"])


def test_an_actor_that_ray_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen worker whose end Ray does not bring about is killed on its node; a person hears of one that stays."""
    warned: list[str] = []
    with on_ray(Role(), warned.append) as stage:
        (worker,) = stage.ready()
        monkeypatch.setattr(ray, "kill", lambda actor, no_restart: None)
        monkeypatch.setattr("stillhouse.runtime.ray_backend._GRACE_S", 0.0)
        os.kill(worker.facts["pid"], signal.SIGSTOP)
        stage.backend.dismiss(worker.worker, "frozen", kill=True)
        assert stage.left(worker.worker).why == "frozen"
        gone(worker.facts["pid"])
    assert len(warned) == 1 and f"kill -9 {worker.facts['pid']}" in warned[0]


def test_a_frozen_actor_that_was_let_go_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A polite end that is not heard becomes a hard one before the worker counts as gone: its place is free again."""
    with on_ray(Role()) as stage:
        (worker,) = stage.ready()
        monkeypatch.setattr(ray, "kill", lambda actor, no_restart: None)
        monkeypatch.setattr("stillhouse.runtime.ray_backend._GRACE_S", 0.5)
        os.kill(worker.facts["pid"], signal.SIGSTOP)
        stage.backend.dismiss(worker.worker, "not needed", kill=False)
        assert stage.left(worker.worker).why == "not needed"
        gone(worker.facts["pid"])


def test_an_actor_of_other_code_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which code both sides have is compared before anything else is said; it counts as a failed start."""
    with on_ray(Role()) as stage:
        monkeypatch.setattr("stillhouse.foundation.stamp.code_stamp", lambda: "9.9 (other)")
        name = stage.backend.start()
        _, why, refused = stage.left(name)
        assert refused and "there stillhouse is 0." in why and "here 9.9 (other): install the very same" in why
        assert stage.backend.placed(name)


def test_an_actor_without_memory_makes_place() -> None:
    """A MemoryError ends a worker: its process goes, the reason is told as it was raised, and others go on."""
    with on_ray(Role()) as stage:
        doomed, other = stage.ready(2)
        stage.backend.send(doomed.worker, Lease("student", 0, 1), b"starve")
        assert stage.left(doomed.worker).why == "MemoryError: Unable to allocate 3.00 GiB"
        gone(doomed.facts["pid"])
        stage.backend.send(other.worker, Lease("student", 1, 1), b"echo on")
        (answer,) = stage.until(bool)
        assert isinstance(answer, Answer) and answer.payload == b"on"


def test_what_an_actor_shows() -> None:
    """What a worker shows of its work comes with its hello, however long."""
    with on_ray(Role(proof=2**22)) as stage:
        (worker,) = stage.ready()
        assert worker.proof == b"p" * 2**22


def test_an_actor_that_loads_leaves_at_once() -> None:
    """SIGTERM for a worker that holds nothing yet: it is gone, and not let in later."""
    with on_ray(Role(loading="long")) as stage:
        name = stage.backend.start()
        while not stage.backend.placed(name):
            assert stage.backend.poll(0.1) == []
        for raylet in children_of(os.getpid(), "", lambda command: command[0].endswith("/raylet")):
            for actor in children_of(raylet, "", lambda command: command[0].startswith("ray::TeacherActor")).values():
                actor.signal(signal.SIGTERM)
                actor.close()
        assert stage.left(name).why == "asked to leave (SIGTERM)"


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A cluster of several nodes on this machine, in place of the one that other tests share; a lost one is in it."""
    from ray.cluster_utils import Cluster

    ray.shutdown()
    looks = {f"health_check_{name}": value for name, value in LOOKS.items()}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": looks}
    found = Cluster(initialize_head=True, head_node_args=head)
    os.environ["PYTHONPATH"] = os.pathsep.join(["tests", str(Path(__file__).parents[2])])
    ray.init(address=found.address, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


def heard(backend: object, enough: int, patience_s: float = 60) -> list[Report]:
    """The next reports, so many at least."""
    reports: list[Report] = []
    end_s = time.monotonic() + patience_s
    while len(reports) < enough and time.monotonic() < end_s:
        reports += backend.poll(0.2)  # type: ignore[attr-defined]
    return reports


def test_nodes_come_and_go(cluster: object) -> None:
    """A worker waits for a node that can hold it, works there without any command, and is gone with it."""
    from stillhouse.runtime.ray_backend import RayBackend

    backend = RayBackend(Role()._asdict(), prepare, {"num_cpus": 1}, unexpected)
    name = backend.start()
    assert backend.poll(1.0) == [] and not backend.placed(name)
    begun_s = time.monotonic()
    node = cluster.add_node(num_cpus=1)  # type: ignore[attr-defined]
    (hello,) = heard(backend, 1)
    assert isinstance(hello, Hello) and hello.worker == name
    print(f"\na worker on a new node, {time.monotonic() - begun_s:.1f} s after its start was begun")
    assert time.monotonic() - begun_s < 30
    backend.send(name, Lease("student", 0, 1), b"echo here")
    (answer,) = heard(backend, 1)
    assert isinstance(answer, Answer) and answer[:3] == (name, Lease("student", 0, 1), b"here")
    cluster.remove_node(node, allow_graceful=False)  # type: ignore[attr-defined]
    (left,) = heard(backend, 1)
    assert isinstance(left, Left) and left.worker == name
    backend.close()


def test_a_node_that_is_to_be_taken_away_is_emptied(cluster: object, tmp_path: Path) -> None:
    """SIGTERM for a node's whole group: its worker is told to leave, what it holds is answered, and the node goes once
    it is idle.
    """
    from stillhouse.runtime.ray_backend import RayBackend

    address = cluster.address  # type: ignore[attr-defined]
    door = {"ray": address, "cpus": 1, "gpus": 0, "keeps": 1, "code": code_stamp()}
    (tmp_path / "recipe.yaml").write_text("name: any\n")
    (tmp_path / DOOR).write_text(json.dumps(door))
    node = subprocess.Popen([SCRIPT, "join", tmp_path], stderr=subprocess.PIPE, text=True, process_group=0)
    backend = RayBackend(Role()._asdict(), prepare, {"num_cpus": 1}, unexpected)
    try:
        name = backend.start()
        while isinstance(first := heard(backend, 1)[0], Left):
            assert not backend.placed(name), "it was given the node that was lost before, and never ran"
            name = backend.start()
        assert isinstance(first, Hello) and backend.placed(name)
        for number in range(2):
            backend.send(name, Lease("student", number, 1), b"wait 3")
        assert node.stderr is not None
        joined = node.stderr.readline()  # the node may be in use before its own command has said so
        os.killpg(node.pid, signal.SIGTERM)
        leaving, *answers = heard(backend, 3)
        assert leaving == Leaving(name, "its machine is to be taken away")
        assert [type(each) for each in answers] == [Answer, Answer]
        assert node.poll() is None
        backend.dismiss(name, "let go", kill=False)
        assert heard(backend, 1) == [Left(name, "let go")]
        _, words = node.communicate(timeout=20)
        assert node.returncode == 0 and [line.partition(":")[0] for line in (joined + words).splitlines()] == [
            f"this machine is a node of the Ray cluster at {address.split(':')[0]}",
            "asked to leave",
            "this machine is no node any more",
        ]
    finally:
        backend.close()
        node.kill()
        node.wait()

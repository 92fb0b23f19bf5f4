"""What only a cluster can do: nodes that come and go, and actors that freeze."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.runtime.backend import Answer, Hello, Left, Report
from stillhouse.runtime.work import Lease

from .acting import Role, prepare
from .stages import on_ray

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")


def test_a_frozen_actor_is_ended() -> None:
    """An actor that was stopped by a signal hears nothing; dismissed, it has left soon all the same."""
    with on_ray(Role()) as stage:
        (worker,) = stage.ready()
        os.kill(worker.facts["pid"], signal.SIGSTOP)
        stage.backend.send(worker.worker, Lease("student", 0, 1), b"echo x")
        assert stage.backend.poll(0.5) == []
        stage.backend.dismiss(worker.worker, "frozen", kill=True)
        assert stage.left(worker.worker).why == "frozen"
        end_s = time.monotonic() + 30
        while Path(f"/proc/{worker.facts['pid']}").exists() and time.monotonic() < end_s:
            time.sleep(0.1)
        assert not Path(f"/proc/{worker.facts['pid']}").exists()


@pytest.fixture
def cluster() -> Iterator[object]:
    """A cluster of several nodes on this machine, in place of the one that other tests share."""
    from ray.cluster_utils import Cluster

    ray.shutdown()
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
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

    backend = RayBackend(Role()._asdict(), prepare, {"num_cpus": 1})
    name = backend.start()
    assert backend.poll(1.0) == [] and not backend.placed(name)
    begun_s = time.monotonic()
    node = cluster.add_node(num_cpus=1)  # type: ignore[attr-defined]
    (hello,) = heard(backend, 1)
    assert isinstance(hello, Hello) and hello.worker == name
    assert time.monotonic() - begun_s < 30
    backend.send(name, Lease("student", 0, 1), b"echo here")
    assert heard(backend, 1) == [Answer(name, Lease("student", 0, 1), b"here")]
    cluster.remove_node(node, allow_graceful=False)  # type: ignore[attr-defined]
    (left,) = heard(backend, 1)
    assert isinstance(left, Left) and left.worker == name
    backend.close()

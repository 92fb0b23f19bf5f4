"""Students that Ray Train starts: as many as there is room for, and the weights of one alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from stillhouse.foundation.events import CheckpointWritten, Event, GroupChanged
from stillhouse.runner.run import run

from .lessons import told, weights
from .test_runner_group import members, shared

# ray.train warns of what ray itself does
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")]
ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
pytest.importorskip("pandas", reason="the extra 'ray' is not installed")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No report, whose drawing takes longer than the run; students find this checkout, and each other on loopback."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["tests", str(Path(__file__).parents[2])]))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of one student in the run's own process."""
    root = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))
        return weights(run(shared(root / "none", 1), root / "run"))


def test_a_student_that_dies_on_ray_is_replaced(tmp_path: Path, alone: str) -> None:
    """Two of three find room and train; one is killed, and the next group ends in the same weights."""
    ray.shutdown()
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    events: list[Event] = []

    def kill(event: Event) -> None:
        events.append(event)
        if isinstance(event, CheckpointWritten) and event.phase == "student" and event.step == 6:
            os.kill(members(events)[1], signal.SIGKILL)

    try:
        result = run(shared(tmp_path / "none", [1, 3], fleet={"backend": "ray"}), tmp_path / "run", [kill])
    finally:
        ray.shutdown()
    assert weights(result) == alone
    changes = told(events, GroupChanged)
    assert [each.kind for each in changes] == ["started", "lost", "started"]
    assert changes[0].students == 2 and changes[2].step >= 6
    assert result["students"]["lost"] == 1


@pytest.mark.skipif("STILLHOUSE_RAY_TESTS" not in os.environ, reason="takes a minute: STILLHOUSE_RAY_TESTS=1")
def test_students_on_ray_grow_with_the_cluster(tmp_path: Path, alone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One student trains where there is room for one; a node joins, and two go on to the same weights."""
    from ray.cluster_utils import Cluster

    monkeypatch.setattr("stillhouse.runtime.ray_group.GROW_S", 2.0)
    ray.shutdown()
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    events: list[Event] = []

    def grow(event: Event) -> None:
        """A node once, after the fourth step; then slowly, so that it comes before the training is over."""
        events.append(event)
        if isinstance(event, CheckpointWritten) and event.phase == "student":
            if event.step == 4 and len(told(events, GroupChanged)) == 1:
                cluster.add_node(num_cpus=1)
            if event.step > 4 and len(told(events, GroupChanged)) == 1:
                time.sleep(3)

    try:
        result = run(shared(tmp_path / "none", [1, 2], fleet={"backend": "ray"}), tmp_path / "run", [grow])
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert weights(result) == alone
    started = [each for each in told(events, GroupChanged) if each.kind == "started"]
    assert [each.students for each in started] == [1, 2] and started[1].step >= 4

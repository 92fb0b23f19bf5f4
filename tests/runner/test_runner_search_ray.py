"""Trials trained by processes on a Ray cluster: the same, also when one is killed or the cluster has room for few."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.errors import FleetError
from stillhouse.foundation.events import Event
from stillhouse.foundation.search_events import TrialLent, TrialReached, TrialWorkerCame, TrialWorkerLost
from stillhouse.recipe.load import validate
from stillhouse.recipe.recipe import Recipe, as_dict
from stillhouse.runner.run import run

from .lessons import told
from .test_runner_search_workers import agree, drawn

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")]
ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")


def on_ray(count: int) -> Recipe:
    """The search, its workers on Ray."""
    values = as_dict(drawn(count))
    return validate({**values, "fleet": {"backend": "ray", "trial_workers": count}})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One with room for two; its processes find this checkout."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["tests", str(Path(__file__).parents[2])]))
    ray.shutdown()
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def test_a_killed_worker_is_replaced(tmp_path: Path, cluster: None) -> None:
    """Three are asked for and two find room; one is killed in the middle of a trial, and its trial goes on."""
    alone: dict[str, Any] = run(drawn(1), tmp_path / "alone")
    events: list[Event] = []

    def kill(event: Event) -> None:
        events.append(event)
        if isinstance(event, TrialReached) and len(told(events, TrialReached)) == 2:
            busy = told(events, TrialLent)[-1].worker
            os.kill(
                next(each.process_id for each in told(events, TrialWorkerCame) if each.worker == busy), signal.SIGKILL
            )

    agree(run(on_ray(3), tmp_path / "run", [kill]), alone)
    (lost,) = told(events, TrialWorkerLost)
    assert lost.trial is None or sum(each.trial == lost.trial for each in told(events, TrialLent)) >= 2
    assert len(told(events, TrialWorkerCame)) >= 2


def test_other_code_there_is_refused(tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained by it, with what to do."""
    monkeypatch.setattr("stillhouse.runtime.ray_crew.otherwise", lambda theirs: "there stillhouse is another")
    with pytest.raises(FleetError, match="there stillhouse is another"):
        run(on_ray(2), tmp_path / "run")

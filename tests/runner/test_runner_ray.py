"""Teachers that are actors of a Ray cluster: the student is the same as with its teacher inline."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from stillhouse.foundation.events import Event, FleetChanged
from stillhouse.runner.run import run

from .lessons import told, weights
from .test_runner_fleet import disturbed, fleeting

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


def test_actors_answer_like_the_process_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two actors, one of them killed at work, give the student's very weights; the cluster is let go at the end."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["tests", str(Path(__file__).parents[2])]))
    ray.shutdown()
    killed: list[int] = []
    heard: set[str] = set()

    def kill(pids: list[int]) -> None:
        heard.add(signal.getsignal(signal.SIGTERM).__module__)
        if not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    plain = run(fleeting(tmp_path / "none", workers=0, epochs=20), tmp_path / "plain")
    recipe = fleeting(tmp_path / "none", epochs=20, backend="ray")
    result, events = disturbed(recipe, tmp_path / "run", kill)
    assert weights(result) == weights(plain)
    assert killed and result["fleet"]["workers_lost"] == 1
    assert heard == {"stillhouse.runner.signals"}
    came = _joined(events)
    assert len(came) >= 2 and {each.facts["reads"] for each in came} == {"mapped"}
    assert not ray.is_initialized()


def _joined(events: list[Event]) -> list[FleetChanged]:
    return [each for each in told(events, FleetChanged) if each.kind == "joined"]

"""Workers that train blocks, started by Ray Train: as many as there is room for, and the weights of one process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from stillhouse.foundation.block_events import BlocksPlanned, BlockWorkersLost
from stillhouse.foundation.events import Event
from stillhouse.runner.run import run

from .lessons import told
from .test_runner_blockwise_workers import hurt, shared, weights

# ray.train warns of what ray itself does
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("not_drawn"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
]
ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
pytest.importorskip("pandas", reason="the extra 'ray' is not installed")


def test_a_worker_that_dies_on_ray_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three find room; one is killed, and the next crew ends in the weights of one process."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["tests", str(Path(__file__).parents[2])]))
    run(shared(1), tmp_path / "alone")
    ray.shutdown()
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    events: list[Event] = []
    recipe = shared(3)
    recipe = recipe.model_copy(update={"fleet": recipe.fleet.model_copy(update={"backend": "ray"})})
    try:
        run(recipe, tmp_path / "run", [hurt(events, signal.SIGKILL, 1)])
    finally:
        ray.shutdown()
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")
    first, second = told(events, BlocksPlanned)
    assert len(first.workers) == len(second.workers) == 2 and second.step > 0
    (lost,) = told(events, BlockWorkersLost)
    assert lost.text.startswith(("worker 2 of 2", "workers 1 and 2 of 2"))  # ray ends the other one at once

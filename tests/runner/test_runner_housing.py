"""Where workers live: how many threads they take, whoever started them."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stillhouse.foundation.errors import UserError
from stillhouse.foundation.stamp import code_stamp
from stillhouse.recipe.load import validate
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.housing import threads_of
from stillhouse.runner.job import Job
from stillhouse.runner.run import run
from stillhouse.runner.worker import _threads

from .conftest import values
from .test_runner_fleet import fleeting


def recipe(**fleet: Any) -> Recipe:
    return validate(values(fleet=fleet))


@pytest.mark.parametrize(
    ("fleet", "threads"),
    [
        ({"workers": 4}, 2),
        ({"workers": [1, 3]}, 2),
        ({"workers": 20}, 1),
        ({"workers": 4, "threads": 7}, 7),
        ({"workers": [1, 2], "backend": "ray"}, 1),
        ({"workers": 1, "backend": "ray", "threads": 3}, 3),
    ],
)
def test_workers_share_the_cores_that_the_run_may_use(
    monkeypatch: pytest.MonkeyPatch, fleet: dict[str, Any], threads: int
) -> None:
    """Of 64 cores a process that may use 8 shares these; of a cluster's machine, which nobody knows, one is taken."""
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert threads_of(recipe(**fleet).fleet) == threads


def test_a_worker_that_joins_by_hand_takes_no_more_than_the_others() -> None:
    """On the run's machine it has as many threads as each worker there; on another one all cores, unless it is told."""
    here = cast(Job, SimpleNamespace(host=platform.node(), threads=3))
    elsewhere = cast(Job, SimpleNamespace(host="another", threads=3))
    assert _threads(recipe(), here) == 3 and _threads(recipe(), elsewhere) is None
    assert _threads(recipe(threads=5), here) == _threads(recipe(threads=5), elsewhere) == 5


def test_a_run_on_ray_knows_its_code_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stamp is taken before anything else takes time: what lies on the disk when the fleet starts may be newer."""

    def stop(check: object) -> str:
        raise UserError("no further")

    monkeypatch.setattr("stillhouse.runner.run.check_ray_installed", lambda: None)
    monkeypatch.setattr("stillhouse.runner.run.find_cluster", stop)
    code_stamp.cache_clear()
    with pytest.raises(UserError, match="no further"):
        run(fleeting(tmp_path / "none", backend="ray"), tmp_path / "run")
    assert code_stamp.cache_info().currsize == 1

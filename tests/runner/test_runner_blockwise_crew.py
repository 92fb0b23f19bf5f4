"""What the run's side of workers that train blocks says and decides, without any worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.block_events import BlockWorkersLost
from stillhouse.foundation.errors import FleetError
from stillhouse.foundation.events import Event
from stillhouse.recipe.load import validate
from stillhouse.runner.blockwise.crew import _warn_of_crowds
from stillhouse.runner.group import Gather, Gathered
from stillhouse.runner.run import run

from .lessons import told
from .small_blocks import SMALL
from .test_runner_group_parts import Doomed


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "advice"),
    [(8, 4, 2, None), (8, 4, 4, "compute.threads: 2"), (4, 8, 1, "--block-workers 4"), (1, 2, 1, None)],
)
def test_who_asks_for_too_many_threads_is_told(
    cores: int, workers: int, threads: int, advice: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads than cores are warned of, with what fits; a machine of one core has no choice."""
    monkeypatch.setattr("stillhouse.runner.blockwise.crew.cores", lambda: cores)
    compute, fleet = {"device": "cpu", "threads": threads}, {"block_workers": workers}
    said: list[str] = []
    _warn_of_crowds(validate({**SMALL, "compute": compute, "fleet": fleet}), said.append)
    assert len(said) == (advice is not None)
    assert advice is None or f"{advice} is" in said[0]


@pytest.mark.usefixtures("not_drawn")
def test_a_run_gives_up_on_workers_that_only_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deaths without a new checkpoint: one worker fewer each time, then an error that says why, and how to go on."""
    crews, events = list[Doomed](), list[Event]()

    def gather(wanted: int) -> Gathered:
        names = [str(number) for number in range(wanted)]
        crews.append(Doomed(names))
        return Gathered(crews[-1], names, None)

    @contextlib.contextmanager
    def gathering(*given: Any) -> Iterator[Gather]:
        yield gather

    monkeypatch.setattr("stillhouse.runner.blockwise.crew.gathering", gathering)
    with pytest.raises(FleetError, match=r"the workers died 4 times .* killed by SIGKILL.* fleet.block_workers: 1"):
        run(validate({**SMALL, "fleet": {"block_workers": 3}}), tmp_path / "run", [events.append])
    assert [each.workers for each in told(events, BlockWorkersLost)] == [3, 2, 1, 1]
    assert all(each.closed for each in crews)

"""What a search does not do twice, and with what it does not go on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from stillhouse.foundation.errors import Interrupted, RunDirError
from stillhouse.foundation.events import Event
from stillhouse.foundation.search_events import TrialReached
from stillhouse.models.graphs.member import Member
from stillhouse.runner.run import resume, run

from .test_runner_search import OWN, TRAIN, recipe


def test_what_was_tried_is_not_tried_again(tmp_path: Path) -> None:
    """Of networks without members each point is tried once, its function's own defaults first; then it is over."""
    (tmp_path / "own.py").write_text(OWN.replace(", seed=0", "").replace("seed >> at", "at"))
    model = {"arch": f"{tmp_path / 'own.py'}:family", "options": {"width": 2}}
    space = {"student.model.options.depth": {"low": 1, "high": 2}, "objective.kd.temperature": [2.0, 4.0]}
    found = run(
        recipe({"space": space, "trials": 9, "rungs": [1], "members": 1}, student={"model": model, "train": TRAIN}),
        tmp_path / "run",
    )
    points = [tuple(each["point"].values()) for each in found["search"]["trials"]]
    assert points[0] == (1, 4.0) and sorted(points) == [(1, 2.0), (1, 4.0), (2, 2.0), (2, 4.0)]


def test_trials_that_left_only_checkpoints_are_refused(tmp_path: Path) -> None:
    """A file that was emptied, or is gone: others would go on from where they stood."""

    def stop(event: Event) -> None:
        if isinstance(event, TrialReached) and event.trial == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run(recipe({"trials": 4, "rungs": [1, 2]}), tmp_path / "run", [stop])
    for spoil in (lambda path: path.write_bytes(b""), Path.unlink):
        spoil(tmp_path / "run" / "search.db")
        with pytest.raises(RunDirError, match=r"search.db holds no trials, but checkpoints/trial-\d-0 is of one"):
            resume(tmp_path / "run")


def test_graphs_that_are_drawn_otherwise_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial goes on as the network that it was, or not at all."""

    def stop(event: Event) -> None:
        if isinstance(event, TrialReached):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run(recipe({"trials": 1, "rungs": [1, 2]}), tmp_path / "run", [stop])
    monkeypatch.setattr(Member, "digest", "other")
    with pytest.raises(RunDirError, match=r"graphs of trial \d were [0-9a-f]+ when it was begun, now .* other: take"):
        resume(tmp_path / "run")

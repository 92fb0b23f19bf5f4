"""What a search does not do twice, and with what it does not go on."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from stillhouse.foundation.errors import Interrupted, RunDirError
from stillhouse.foundation.events import Event
from stillhouse.foundation.search_events import TrialReached
from stillhouse.models.graphs.member import Member
from stillhouse.runner.run import resume, run
from stillhouse.runner.search.candidate import seed_of

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


def test_what_depends_on_others_is_not_tried_again_either(tmp_path: Path) -> None:
    """Nor what costs too much: then, too, there is an end."""
    space = {
        "student.model.arch": ["resnet", "mobilenet"],
        "student.model.options.blocks": {"choices": [[1, 1], [1, 2]], "when": {"student.model.arch": "resnet"}},
        "student.model.options.width": {"choices": [4, 400], "when": {"student.model.arch": "mobilenet"}},
    }
    found = run(
        recipe(
            {"space": space, "trials": 9, "rungs": [1], "members": 1, "random": 0.0},
            student={"model": {"arch": "resnet", "options": {"blocks": [1, 1]}}, "train": TRAIN},
        ),
        tmp_path / "run",
    )
    points = [tuple(map(str, each["point"].values())) for each in found["search"]["trials"]]
    assert sorted(points) == [("mobilenet", "4"), ("mobilenet", "400"), ("resnet", "[1, 1]"), ("resnet", "[1, 2]")]
    assert [
        each["ended"][:17]
        for each in found["search"]["trials"]
        if each["point"].get("student.model.options.width") == 400
    ] == ["beyond the budget"]


def test_the_search_before_is_not_needed_once_it_was_read(tmp_path: Path) -> None:
    """Its points stand with the trials."""
    (tmp_path / "own.py").write_text(OWN)
    space = {"objective.kd.temperature": {"low": 1.0, "high": 9.0}}
    sought = {"space": space, "trials": 2, "rungs": [1], "members": 1, "finalists": 1}
    model = {"arch": f"{tmp_path / 'own.py'}:family", "options": {"width": 2}}
    student = {"model": model, "train": TRAIN}
    run(recipe(sought, student=student), tmp_path / "before")

    def stop(event: Event) -> None:
        if isinstance(event, TrialReached):
            signal.raise_signal(signal.SIGINT)

    after = recipe({**sought, "trials": 3, "after": [str(tmp_path / "before")]}, student=student)
    with pytest.raises(Interrupted):
        run(after, tmp_path / "run", [stop])
    shutil.rmtree(tmp_path / "before")
    found = resume(tmp_path / "run")
    assert sum(bool(each["rungs"]) for each in found["search"]["trials"]) == 3


_BY_SEED = """
from torch import nn

def family(classes, channels, seed=0):
    wide = 8 + seed % 64
    layers = [nn.Conv2d(channels, wide, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(wide, classes))
"""


def test_members_over_the_budget_are_left_out(tmp_path: Path) -> None:
    """Where only the seed says how many parameters a network has."""
    (tmp_path / "own.py").write_text(_BY_SEED)
    space = {"objective.kd.temperature": {"low": 1.0, "high": 9.0}}
    search = {"budget": {"params": 0.08}, "space": space, "rungs": [1], "members": 4, "finalists": 1}
    made = recipe(
        search, student={"model": {"arch": f"{tmp_path / 'own.py'}:family", "options": {"seed": 0}}, "train": TRAIN}
    )
    found = run(made, tmp_path / "run")
    most = 0.08 * found["teacher"]["params"]

    def fits(trial: int, member: int) -> bool:
        return 20 * (8 + seed_of(made, trial, member) % 64) + 10 <= most

    trained = {each["trial"]: len(each["members"]) for each in found["search"]["trials"] if each["members"]}
    assert trained == {trial: sum(fits(trial, member) for member in range(4)) for trial in trained}
    assert min(trained.values()) < 4 and found["student"]["params"] <= most


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

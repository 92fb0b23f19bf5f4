"""A study on disk: Optuna's own file, read again by whoever goes on."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from stillhouse.foundation.errors import RunDirError
from stillhouse.recipe.search import ChoiceSection, NumberSection, RestSection, SearchSection
from stillhouse.study import record
from stillhouse.study.record import Record

SPACE: dict[str, Any] = {
    "a.b": NumberSection(low=0.0, high=1.0),
    "a.rest": RestSection(rest_of="a.b"),
    "c": ChoiceSection(choices=([1, 2], [3])),
}
POINT = {"a.b": 0.25, "a.rest": 0.75, "c": [1, 2]}


def opened(path: Path, **identity: Any) -> Record:
    return Record(path, (1, 2, 4), SPACE, {"teacher": "x", **identity})


def test_what_was_told_is_there_for_the_next_process(tmp_path: Path) -> None:
    """Points to the last bit, values at rungs, members, costs, ends."""
    path = tmp_path / "study.db"
    first = opened(path)
    numbers = [first.begin(POINT), first.begin({**POINT, "c": [3]}), first.begin(POINT), first.begin(POINT)]
    assert numbers == [0, 1, 2, 3]
    first.cost(0, {"params": 300}, {"params": -0.1})
    first.reach(0, 0, [0.4])
    first.reach(1, 0, [0.5])
    first.reach(1, 1, [0.6])
    opened(path).reach(1, 2, [0.7, 0.8])
    first.end(2, "it diverged", failed=True)
    one, other, failed, begun = opened(path).trials()
    assert one.point == POINT and one.values == (0.4,) and one.open
    assert one.costs == {"params": 300} and one.beyond == {"params": -0.1}
    assert other.values == (0.5, 0.6, 0.75) and other.members == (0.7, 0.8) and not other.open
    assert failed.why == "it diverged" and not failed.open and failed.values == ()
    assert begun.open and begun.values == () and begun.point == POINT


def test_no_trial_is_left_running(tmp_path: Path) -> None:
    """Once the search is over Optuna, too, knows how each ended."""
    path = tmp_path / "study.db"
    mine = opened(path)
    for number in range(3):
        assert mine.begin(POINT) == number
    mine.reach(0, 0, [0.5])
    mine.end(1, "it diverged", failed=True)
    for rung in range(3):
        mine.reach(2, rung, [0.5])
    mine.close()
    assert [each.why for each in mine.trials()] == ["others were better", "it diverged", ""]
    theirs = optuna.load_study(study_name="search", storage=f"sqlite:///{path}")
    assert [each.state for each in theirs.trials] == [TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE]
    assert theirs.best_value == 0.5 and theirs.best_params == {"a.b": 0.25, "c": "[1, 2]"}


def test_trials_of_another_search_are_refused(tmp_path: Path) -> None:
    """What differs is shown."""
    opened(tmp_path / "study.db")
    with pytest.raises(RunDirError, match=r"holds trials of another search:\n  teacher: x -> y"):
        opened(tmp_path / "study.db", teacher="y")


def test_a_search_of_an_older_version_is_known(tmp_path: Path) -> None:
    """A setting that it did not know has its default; another value of one that it did know is told."""
    now = SearchSection.model_validate({"budget": {"params": 0.1}}).model_dump(mode="json", exclude={"trials"})
    then = {name: each for name, each in now.items() if name != "failures_max"}
    opened(tmp_path / "study.db", search=then).begin(POINT)
    assert len(opened(tmp_path / "study.db", search=now).trials()) == 1
    with pytest.raises(RunDirError, match=r"of another search:\n  search.reduction: 3 -> 4$"):
        opened(tmp_path / "study.db", search={**now, "reduction": 4})


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    """Cut off in the middle, or none of SQLite's."""
    path = tmp_path / "study.db"
    opened(path)
    whole = path.read_bytes()
    for content in (whole[:5000], b"no database" * 400):
        path.write_bytes(content)
        with pytest.raises(RunDirError, match=r"study.db is damaged \(.*move it away"):
            opened(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("update trial_user_attributes set value_json = '{'", r"study.db is damaged \(.*move it away"),
        ("delete from trial_user_attributes", "holds no search of Stillhouse: its trial 0 does not say"),
        ("update alembic_version set version_num = 'v2.6.0.a'", r"study\.db can't be used by this Optuna: "),
    ],
)
def test_a_file_that_somebody_changed_is_told(tmp_path: Path, change: str, words: str) -> None:
    """Also where it is read for its best points only."""
    path = tmp_path / "study.db"
    mine = opened(path)
    mine.reach(mine.begin(POINT), 0, [0.5])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(change)
    with pytest.raises(RunDirError, match=words):
        opened(path).trials()
    with pytest.raises(RunDirError, match=r"study\.db"):
        record.best_points(path, 1)


def test_a_locked_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else holds it for longer than one waits."""
    monkeypatch.setattr(record, "_LOCKED_S", 1)
    path = tmp_path / "study.db"
    opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(RunDirError, match="locked by another program for 1 s"):
            opened(path).begin(POINT)
    finally:
        other.close()

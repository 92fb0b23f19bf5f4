"""A search that is given more trials than it began with, and when no more are begun."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.foundation.errors import Interrupted, RecipeError, RunDirError
from stillhouse.foundation.events import Event
from stillhouse.foundation.search_events import FinalistTrained, TrialBegun
from stillhouse.recipe.search import SearchBudgetSection, SearchSection
from stillhouse.runner.run import resume, run
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.search.enough import may_begin, worth_little
from stillhouse.study.record import Trial

from .lessons import told, weights
from .test_runner_search import recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of six trials; only to be read."""
    return tmp_path_factory.mktemp("search") / "run"


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    return run(recipe(store={"path": str(folder.parent / "labels")}), folder)


def test_a_search_may_be_given_more_trials(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    """As long as its student is not chosen: it ends as one that had them from the beginning."""

    def stop(event: Event) -> None:
        if isinstance(event, TrialBegun) and event.trial == 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(recipe({"trials": 3}, store={"path": str(folder.parent / "labels")}), tmp_path / "run", [stop])
    with pytest.raises(Interrupted):
        resume(tmp_path / "run", [lambda event: signal.raise_signal(signal.SIGTERM)], trials=6)
    found = resume(tmp_path / "run")  # it is remembered
    assert weights(found) == weights(result)
    ours, theirs = ([(each["point"], each["rungs"]) for each in of["search"]["trials"]] for of in (found, result))
    assert ours == theirs
    assert resume(tmp_path / "run", trials=6)["search"] == found["search"]
    with pytest.raises(RunDirError, match=r"its student is chosen, of 6 trials; .* --set 'search.after=\["):
        resume(tmp_path / "run", trials=7)


def test_more_trials_among_the_finalists(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    """Its trials can still go on: what was trained of finalists is set aside, and the student is of all of them."""

    def stop(event: Event) -> None:
        if isinstance(event, FinalistTrained):
            signal.raise_signal(signal.SIGTERM)

    few = recipe({"trials": 3}, store={"path": str(folder.parent / "labels")})
    with pytest.raises(Interrupted):
        run(few, tmp_path / "run", [stop])
    events: list[Event] = []
    found = resume(tmp_path / "run", [events.append], trials=6)
    assert [each.trial for each in told(events, TrialBegun)] == [3, 4, 5]
    assert len([each for each in found["search"]["trials"] if each["rungs"]]) == 6
    best = max(each["rungs"].get("3", 0.0) for each in found["search"]["trials"])
    first = found["search"]["finalists"][0]["trial"]
    assert found["search"]["trials"][first]["rungs"]["3"] == best
    winner = max(found["search"]["finalists"], key=lambda each: each["accuracy"])
    assert found["search"]["student"] == {"trial": winner["trial"], "member": winner["member"]}
    assert not list((tmp_path / "run" / "checkpoints").rglob("*.ckpt"))


def test_a_changed_recipe_is_refused_all_the_same(tmp_path: Path) -> None:
    """More trials are no way around what may not change; nor is the recipe's own line, once the student is chosen."""

    def stop(event: Event) -> None:
        if isinstance(event, TrialBegun):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(recipe({"trials": 2, "rungs": [1], "members": 1, "finalists": 1}), tmp_path / "run", [stop])
    path = tmp_path / "run" / "recipe.yaml"
    before = path.read_text()
    path.write_text(before.replace("learning_rate: 0.05", "learning_rate: 0.06"))
    with pytest.raises(RunDirError, match=r"learning_rate: 0\.05 -> 0\.06"):
        resume(tmp_path / "run", trials=3)
    path.write_text(before)
    resume(tmp_path / "run")
    path.write_text(before.replace("trials: 2", "trials: 9"))
    with pytest.raises(RunDirError, match=r"search\.trials: 2 -> 9"):
        resume(tmp_path / "run", trials=9)


def test_only_a_search_has_trials(tmp_path: Path) -> None:
    """Told by the folder."""
    with RunDir(tmp_path / "run").held():
        RunDir(tmp_path / "run").begin(recipe().model_copy(update={"search": None}))
    with pytest.raises(RecipeError, match="does not search: it has no trials"):
        resume(tmp_path / "run", trials=9)


SECTION = SearchSection(budget=SearchBudgetSection(params=0.5), trials=20, failures_max=3)
DEAR = [Trial(number, {}, why=f"beyond the budget: params by {number} %", open=False) for number in range(9, 210)]
LOST = [Trial(number, {}, why="it diverged", open=False) for number in range(1, 4)]


@pytest.mark.parametrize(
    ("trials", "wanted"),
    [
        (LOST[:2], 20),
        ([Trial(0, {}), *LOST], 0),  # under way: it may come to something
        ([Trial(0, {}, (0.5,)), *LOST], 0),
        ([Trial(0, {}, (0.5, 0.6), open=False), *LOST], 0),
        ([*LOST, Trial(4, {}, (0.5,))], 20),
        ([*LOST, Trial(4, {}, why="beyond the budget: params by 3 %", open=False)], None),
        ([*LOST, Trial(4, {}, why="short of the budget: a channel more is too many", open=False)], None),
        ([*LOST[1:], Trial(4, {}, why="short of the budget: a channel more is too many", open=False)], 20),
        ([Trial(0, {}, (0.5,), why="it diverged", open=False), *LOST], None),
        (LOST, None),
        (DEAR[1:], 20),
        ([Trial(0, {}), *DEAR], 0),
        ([Trial(0, {}, (0.5,)), *DEAR], 0),
    ],
)
def test_how_many_trials_may_be_begun(trials: list[Trial], wanted: int | None) -> None:
    """After many failures in a row no more, as long as another may come to something; else the search ends."""
    if wanted is not None:
        assert may_begin(trials, SECTION) == wanted
        return
    with pytest.raises(RecipeError, match=r"3 trials in a row could not be trained: it diverged \(3 of 3\)"):
        may_begin(trials, SECTION)


def test_a_search_that_finds_nothing_within_its_budget_says_what_is_too_much() -> None:
    """Where nothing at all was trained."""
    told = (
        r"search.budget: 201 of the 201 networks .* keep to the budget, most of them: beyond the budget: params by 9 %"
    )
    with pytest.raises(RecipeError, match=told):
        may_begin(DEAR, SECTION)


def test_a_search_that_found_little_says_so() -> None:
    """What was trained counts; of the rest there is a warning."""
    (said,) = worth_little([Trial(0, {}, (0.9,), open=False), *DEAR], SECTION, np.array([0, 1]))
    assert said.startswith("search.budget: no more trials were begun: 201 of the 202 networks")

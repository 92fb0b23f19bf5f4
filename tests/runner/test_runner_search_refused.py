"""Searches that are refused, or of whose trials many or all fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.errors import DivergedError, RecipeError
from stillhouse.foundation.events import Event, Warned
from stillhouse.foundation.search_events import TrialEnded
from stillhouse.runner.run import run
from stillhouse.students.fit import fit

from .lessons import told
from .test_runner_search import SPACE, TRAIN, recipe

SLOW = {"macs_per_s": 1e9, "bytes_per_s": 1e9, "call_s": 1e-5}


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"budget": {"params": 0.0001}}, r"search.budget.params: no network .* the smallest needs 0\.\d"),
        ({"budget": {"latency_ms": 1e-6}}, r"search.budget.latency_ms: no network .* the smallest needs 0\.\d"),
        ({"target": {**SLOW, "memory_bytes": 10}}, r"search.target.memory_bytes: .* the smallest needs [\d,]{5,}$"),
        ({"space": {"objective.kd.weight": [0.5]}}, "nothing varies"),
        ({"sampler": {"name": "QMSampler"}}, "search.sampler.name: 'QMSampler': did you mean 'QMCSampler'"),
        ({"rungs": [2, 40]}, "search.rungs: 40 epochs are more than the student's"),
    ],
)
def test_a_search_without_sense_is_refused(tmp_path: Path, search: dict[str, Any], words: str) -> None:
    """Before anything is trained, and nothing is left behind."""
    with pytest.raises(RecipeError, match=words):
        run(recipe(search), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_search_without_a_teacher_to_ask(tmp_path: Path) -> None:
    """Networks may be searched by labels alone; how a teacher is asked can't vary then."""
    plain = {"cross_entropy": 1.0, "kd": None}
    space = {"student.model.options.top.nodes": [2, 3]}
    found = run(recipe({"space": space, "trials": 2, "rungs": [1], "members": 1}, objective=plain), tmp_path / "run")
    assert found["store"] is None and len(found["search"]["trials"]) == 2
    with pytest.raises(RecipeError, match=r"'objective.kd.temperature' varies, but objective.kd asks"):
        run(recipe(objective={"cross_entropy": 1.0, "kd": {"weight": 0.0}}), tmp_path / "other")


def test_trials_that_all_fail_end_the_search(tmp_path: Path) -> None:
    """With what they have in common."""
    space = {**SPACE, "student.train.optimizer.learning_rate": {"low": 1e6, "high": 1e9}}
    with pytest.raises(RecipeError, match=r"search: 3 trials in a row could not be trained: .* \(\d of 3\)"):
        run(recipe({"space": space, "failures_max": 3}), tmp_path / "run")


def test_many_failures_leave_what_came_to_its_end(tmp_path: Path) -> None:
    """No more trials are begun, it is told, and the student is of those that could be trained."""
    rates = [0.05, *(10.0**each for each in range(8, 18))]
    space = {"student.train.optimizer.learning_rate": rates, "objective.kd.weight": {"low": 0.2, "high": 0.9}}
    sought = {"space": space, "failures_max": 2, "random": 0.9, "members": 1, "rungs": [1, 2], "trials": 30}
    events: list[Event] = []
    found = run(recipe(sought), tmp_path / "run", [events.append])
    trained = [each for each in found["search"]["trials"] if each["rungs"]]
    assert trained and len(found["search"]["trials"]) < 30 and "2" in trained[0]["rungs"]
    assert found["search"]["student"]["trial"] in [each["trial"] for each in trained]
    assert any("the last 2 trials could not be trained, no more" in each.message for each in told(events, Warned))
    assert found["search"]["finalist_epochs"] == TRAIN["epochs"] * len(found["search"]["finalists"])


def test_what_a_failed_trial_took_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs that it was trained since its last rung are told with its end, and are part of what the search spent."""

    def diverging(network: Any, *more: Any) -> Any:
        result = fit(network, *more)
        if more[-1].phase == "trial-1-0":
            raise DivergedError("the loss is infinite")
        return result

    monkeypatch.setattr("stillhouse.runner.search.task.fit", diverging)
    events: list[Event] = []
    sought = {"trials": 2, "rungs": [2], "members": 1, "finalists": 1}
    found = run(recipe(sought), tmp_path / "run", [events.append])["search"]
    assert [(each.trial, each.failed, each.trained_epochs) for each in told(events, TrialEnded)] == [(1, True, 2.0)]
    begun = sum(bool(each["rungs"]) for each in found["trials"])
    assert found["trained_epochs"] == 2 * begun + 2.0

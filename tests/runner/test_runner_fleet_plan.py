"""Plans of fleets: rates as given or as a run told them, the cheapest mix that its simulation bears out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.errors import RunDirError, UserError
from stillhouse.recipe.load import dump, validate
from stillhouse.recipe.recipe import Recipe
from stillhouse.report.fleets import mix_words, table
from stillhouse.report.numbers import MISSING
from stillhouse.runner.fleet_plan import LINE_BATCHES, LINE_LEAST, FleetPlan, Offer, fleet_plan, nothing_to_plan
from stillhouse.runner.rates import Rates, rates_of, same_recipe
from stillhouse.teachers import fleet

from .conftest import values

CPU, GPU = Offer("cpu", 100.0, price=0.1, watts=50.0), Offer("gpu", 900.0, price=0.6, watts=300.0)
STUDENT = Offer("student", 1000.0, price=1.0, watts=100.0)


def recipe_of(**sections: Any) -> Recipe:
    """A student of 400 samples an epoch and a store, in which nothing is yet."""
    return validate(values(**sections))


def planned(offers: list[Offer], share: float = 0.95, rates: Rates | None = None, **sections: Any) -> FleetPlan:
    return fleet_plan(recipe_of(**sections), rates or Rates(), offers, STUDENT, share)


def told_by(folder: Path, recipe: Recipe, *events: dict[str, Any], finished: bool = False) -> Path:
    """A run that told these events."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump(recipe))
    manifest = {"recipe": recipe.model_dump(mode="json"), "inputs": {}, "versions": {}}
    (folder / "run.json").write_text(json.dumps(manifest))
    (folder / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in events))
    if finished:
        (folder / "result.json").write_text(json.dumps({"format": 1}))
    return folder


def progress(samples: int, misses: int, **seconds: float) -> dict[str, Any]:
    return {
        "event": "Progress", "phase": "student", "step": 1, "epoch": 1.0, "losses": {}, "learning_rate": 0.1,
        "seconds": seconds, "samples": samples, "counts": {"misses": misses, "hits": samples - misses},
    }  # fmt: skip


def joined(name: str, pace_s: float, host: str = "here", device: str = "cpu") -> dict[str, Any]:
    facts = {"host": host, "pid": 1, "device": device, "threads": 2, "reads": "mapped", "pace_s": pace_s}
    return {"event": "FleetChanged", "kind": "joined", "worker": name, "text": "", "facts": facts, "ago_s": 0.0}


BEGUN = {"event": "PhaseStarted", "phase": "student", "step": 0, "steps": 6, "batch_size": 200}


def test_the_cheapest_mix_is_chosen_and_simulated() -> None:
    """One of each feeds the student for less than ten or two of a kind; the simulation stands beside the arithmetic."""
    plan = planned([CPU, GPU])
    assert plan.chosen is not None and dict(plan.chosen.workers) == {"cpu": 1, "gpu": 1}
    mine = next(each for each in plan.shown if each.row == plan.chosen)
    assert mine.simulated is not None and mine.simulated.throughput == pytest.approx(1000.0, rel=0.05)
    assert len(plan.shown) >= 3 and "expected" in plan.verdict and "simulated" in plan.verdict


def test_a_kind_that_is_not_worth_its_price_is_said_to_be(tmp_path: Path) -> None:
    """Who offered a kind that stands in no mix is told so."""
    facts = dict(planned([Offer("cheap", 900.0, price=0.1), Offer("dear", 300.0, price=0.9)]).facts)
    assert "in no mix" in facts["Teacher dear"] and "in no mix" not in facts["Teacher cheap"]


def test_none_is_enough() -> None:
    """What can't be had is not promised: the most there is is named instead."""
    plan = planned([Offer("cpu", 100.0, available=3)], share=0.5)
    assert plan.chosen is None and "3 x cpu, 30 %" in plan.verdict


def test_a_mix_that_simulates_badly_is_passed_over() -> None:
    """Where the line holds one question ten workers give what one does: a dearer one that is fast enough is taken."""
    teacher = values()["teacher"] | {"engine": {"batch_size": LINE_BATCHES}}
    student = values()["student"] | {"train": {"epochs": 2, "batch_size": 1}}
    sections = {"teacher": teacher, "student": student}
    nine = Offer("cpu", 100.0, price=0.1, available=9)
    plan = planned([nine, Offer("big", 2000.0, price=9.0)], 0.85, **sections)
    assert plan.chosen is not None and dict(plan.chosen.workers) == {"big": 1}
    assert "9 x cpu" in [mix_words(each.row) for each in plan.shown]
    assert "but 95 % was wanted" in planned([CPU], **sections).verdict


def test_alone_is_enough() -> None:
    """A teacher that costs the student next to nothing needs no fleet, and nothing is simulated for it."""
    plan = planned([CPU], rates=Rates(inline=100_000.0))
    assert plan.chosen is not None and plan.chosen.workers == () and "No fleet is needed" in plan.verdict


def test_speeds_as_a_run_measured_them(tmp_path: Path) -> None:
    """The student's rate leaves out what it waited for the teacher; workers of a kind are told by their median."""
    recipe = recipe_of()
    run = told_by(
        tmp_path / "run", recipe, BEGUN, joined("local-1", 0.01), joined("local-2", 0.02), joined("local-3", 0.03),
        progress(2000, 2000, data=1.0, teacher=6.0, step=3.0, evaluate=50.0),
    )  # fmt: skip
    rates = rates_of(run, recipe)
    assert rates.student == 500.0 and rates.inline is None
    assert rates.teachers == {"cpu/2": 50.0}
    plan = fleet_plan(recipe, rates, [], Offer("student"), 0.95)
    assert plan.chosen is not None and dict(plan.chosen.workers) == {"cpu/2": 10}
    priced = fleet_plan(recipe, rates, [Offer("cpu/2", price=2.0)], Offer("student"), 0.95)
    assert priced.priced and priced.chosen is not None and priced.chosen.cost > 0


def test_the_pace_at_work_is_believed_before_the_one_at_the_door(tmp_path: Path) -> None:
    """What a worker took for real questions, told last, replaces what it measured when it joined."""

    def measured(name: str, views: int, pace_s: float | None) -> dict[str, Any]:
        return {"event": "FleetMeasured", "workers": [[name, "busy", views, pace_s, 1, 1.0]]}

    run = told_by(
        tmp_path / "run", recipe_of(), BEGUN, joined("a", 0.01), measured("a", 0, 0.01), measured("a", 64, 0.02),
        measured("a", 128, 0.04), measured("b", 64, 9.0), joined("a", 0.01),
    )  # fmt: skip
    assert rates_of(run, recipe_of()).teachers == {"cpu/2": pytest.approx(1 / 0.025)}


def test_speeds_of_several_hosts_are_kept_apart(tmp_path: Path) -> None:
    """The same processor elsewhere is another kind."""
    run = told_by(tmp_path / "run", recipe_of(), BEGUN, joined("a", 0.01), joined("b", 0.02, "there"))
    assert rates_of(run, recipe_of()).teachers == {"cpu/2@here": 100.0, "cpu/2@there": 50.0}


def test_a_run_without_workers_tells_its_own_teacher(tmp_path: Path) -> None:
    """Where no worker joined the teacher's rate is what the student's process answered."""
    run = told_by(tmp_path / "run", recipe_of(), BEGUN, progress(1000, 500, teacher=5.0, step=2.0))
    rates = rates_of(run, recipe_of())
    assert rates.inline == 100.0 and rates.teachers == {"teacher": 100.0} and rates.student == 500.0


def test_what_is_stored_is_not_asked(tmp_path: Path) -> None:
    """Answers that are there shorten the plan; where all are, one like it is planned, with this one's speeds."""
    recipe, labels = recipe_of(), tmp_path / "labels"
    labels.mkdir()
    opened = {"event": "StoreOpened", "folder": str(labels), "views": 1, "answered": 0, "wanted": 1200}
    half = rates_of(told_by(tmp_path / "half", recipe, opened, BEGUN, progress(100, 100, step=1.0)), recipe)
    assert 0 < half.answered < 1
    full = rates_of(told_by(tmp_path / "full", recipe, opened, BEGUN, finished=True), recipe)
    asked = [dict(fleet_plan(recipe, each, [CPU], STUDENT, 0.95).facts)["Asked"] for each in (Rates(), half, full)]
    assert asked[0] in asked[2] and "as if nothing were stored" in asked[2] and 1 < float(asked[1].split()[0]) < 2
    labels.rmdir()
    assert rates_of(tmp_path / "full", recipe).answered == 0.0
    untaught = recipe_of(objective={"cross_entropy": 1.0, "kd": None})
    assert "the objective asks nothing" in nothing_to_plan(untaught) and not nothing_to_plan(recipe)


@pytest.mark.parametrize(
    ("offers", "student", "words"),
    [
        ([CPU], Offer("student"), "--student RATE"),
        ([], STUDENT, "--teacher NAME:RATE"),
        ([Offer("gpu")], STUDENT, "--teacher gpu:RATE"),
        ([CPU, CPU], STUDENT, "given twice"),
    ],
)
def test_what_nobody_knows_is_asked_for(offers: list[Offer], student: Offer, words: str) -> None:
    """A rate that was neither given nor measured is an error that says how to give it."""
    with pytest.raises(UserError, match=words):
        fleet_plan(recipe_of(), Rates(), offers, student, 0.95)


def test_a_run_of_another_recipe_is_refused(tmp_path: Path) -> None:
    """Speeds of other networks say nothing; another fleet, another device or another store is no other recipe."""
    run = told_by(tmp_path / "run", recipe_of())
    same_recipe(recipe_of(fleet={"workers": 3}), run)
    with pytest.raises(RunDirError, match="a run of another recipe"):
        same_recipe(recipe_of(seed=5), run)
    with pytest.raises(RunDirError, match="holds no run"):
        same_recipe(recipe_of(), tmp_path / "nowhere")


def test_the_line_is_as_long_as_the_fleets() -> None:
    """The number that is told here without torch is the one that holds."""
    assert (LINE_BATCHES, LINE_LEAST) == (fleet._LINE_MAX, fleet._LINE_LEAST)


def window_of(rates: Rates, **sections: Any) -> str:
    return dict(planned([CPU], rates=rates, **sections).facts)["Questions"].partition("at most ")[2]


def test_the_window_is_as_large_as_the_runs(tmp_path: Path) -> None:
    """What a batch takes in memory, and what an answer does, features included, bound what is asked ahead."""
    small, large = {"fleet": {"window_mb": 16}}, {"source": {"kind": "digits"}, "size_px": [80, 80]}
    assert window_of(Rates(), **small) == "25,600 views not taken yet"
    assert window_of(Rates(), data=large, **small) == "2,400 views not taken yet"
    assert window_of(Rates(row_bytes=20_000), data=large, **small) == "800 views not taken yet"
    assert window_of(Rates(row_bytes=10**6), **small) == "128 views not taken yet", "a question always fits"
    told = told_by(
        tmp_path / "run", recipe_of(), BEGUN, {"event": "AnswersFormed", "view_bytes": 9, "row_bytes": 20_000}
    )
    assert (rates_of(told, recipe_of()).view_bytes, rates_of(told, recipe_of()).row_bytes) == (9, 20_000)
    assert window_of(Rates(view_bytes=10_000), **small) == "1,600 views not taken yet"


def test_a_run_tells_what_its_views_and_answers_take(finished: Path) -> None:
    """Grey images of 8 x 8, and ten logits."""
    rates = rates_of(finished, recipe_of())
    assert (rates.view_bytes, rates.row_bytes) == (64, 40)


def test_features_that_nobody_has_measured_are_not_passed_over_in_silence() -> None:
    """Without a run nobody knows how large the teacher's activations are: the plan says that it left them out."""
    features = {"objective": {"features": [{"teacher": "layers.0", "student": "layers.0", "weight": 0.3}]}}
    assert "features not counted: give --from RUN" in window_of(Rates(), **features)
    assert "features" not in window_of(Rates(row_bytes=100), **features)


def test_a_mix_without_workers_is_not_simulated() -> None:
    """A dash stands where there is nothing to simulate."""
    plan = planned([CPU], rates=Rates(inline=10.0))
    assert table(plan).rows[0][:3] == ["none (inline)", "9.90", MISSING]

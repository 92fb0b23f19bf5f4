"""A search from its recipe to its student: on digits, in seconds."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import Interrupted, RecipeError
from stillhouse.foundation.events import Event, Warned
from stillhouse.foundation.history import read_events
from stillhouse.foundation.search_events import StudentFound, TrialBegun, TrialEnded, TrialReached
from stillhouse.recipe.load import load, validate
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.materials import Materials
from stillhouse.runner.run import resume, run

from .lessons import told, weights

TRAIN = {"epochs": 4, "batch_size": 200, "optimizer": {"kind": "sgd", "learning_rate": 0.05}}
GRAPH = {
    "top": {"nodes": 3},
    "middle": {"kind": "erdos_renyi", "nodes": 1},
    "bottom": {"nodes": 2, "probability": 0.9},
    "depth": [1, 1],
}
SPACE: dict[str, Any] = {
    "student.model.options.top.nodes": {"low": 2, "high": 5},
    "student.model.options.operation": ["conv", "separable"],
    "objective.kd.temperature": {"low": 1.0, "high": 20.0, "log": True},
    "objective.kd.weight": {"low": 0.0, "high": 1.0},
    "objective.cross_entropy": {"rest_of": "objective.kd.weight"},
}


def recipe(search: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    """A search of six trials."""
    sought = {"budget": {"params": 0.3}, "space": SPACE, "trials": 6, "rungs": [1, 2, 3], "members": 2, "finalists": 2}
    values = {
        "name": "small",
        "data": {"source": {"kind": "digits"}, "augment": {"pad_px": 1}, "views": 2},
        "teacher": {"model": {"arch": "vgg", "options": {"width": 24, "blocks": [1, 1]}}, "train": TRAIN},
        "student": {"model": {"arch": "random_graph", "options": GRAPH}, "train": TRAIN},
        "search": {**sought, **(search or {})},
        "control": {"seeds": 0},
        "compute": {"device": "cpu", "threads": 1},
    }
    return validate({**values, **sections})


EPOCH = 1200
"""Samples of it."""


def trained(folder: Path) -> int:
    """Samples that the trials of a search were trained on."""
    told = [each for each in read_events(folder / "events.jsonl") if each["event"] == "Progress"]
    return sum(each["samples"] for each in told if each["phase"] == "search")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search; only to be read."""
    found = tmp_path_factory.mktemp("search") / "run"
    run(recipe(store={"path": str(found.parent / "labels")}), found)
    return found


@pytest.fixture
def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_the_student_is_found_within_its_budget(result: dict[str, Any]) -> None:
    """All trials are told, each rung by the mean of its members; the best finalist is the student."""
    found = result["search"]
    assert result["method"] == "search"
    assert sum(bool(each["rungs"]) for each in found["trials"]) == 6
    top = [each for each in found["trials"] if "3" in each["rungs"]]
    assert top and all(len(each["members"]) == 2 for each in top)
    for each in top:
        assert each["rungs"]["3"] == pytest.approx(sum(each["members"]) / 2, abs=1e-6)
        assert set(each["rungs"]) == {"1", "2", "3"} and each["costs"]["params"] <= 0.3 * result["teacher"]["params"]
    best = max(top, key=lambda each: each["rungs"]["3"])
    assert {each["trial"] for each in found["finalists"]} == {best["trial"]} and len(found["finalists"]) in (1, 2)
    winner = max(found["finalists"], key=lambda each: each["accuracy"])
    assert found["student"] == {"trial": winner["trial"], "member": winner["member"]}
    assert result["student"]["params"] == winner["params"] <= 0.3 * result["teacher"]["params"]
    assert found["trained_epochs"] == sum(
        epochs
        for each in found["trials"]
        for epochs in [int(max(each["rungs"], key=int)) if each["rungs"] else 0]
        for epochs in [epochs + (3 if epochs == 3 else 0)]
    )


def test_the_winners_recipe_makes_the_same_student(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    """To the last bit, by the teacher that the search had."""
    again = run(load(folder / "best.yaml"), tmp_path / "again")
    assert weights(again) == weights(result)
    assert again["search"] is None and again["method"] == "distill"


def test_optuna_reads_the_trials(folder: Path, result: dict[str, Any]) -> None:
    """Its own tools know all of them, and none is left running."""
    theirs = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'search.db'}")
    assert TrialState.RUNNING not in [each.state for each in theirs.trials]
    assert theirs.best_trial.number == result["search"]["student"]["trial"]
    assert not list((folder / "checkpoints").rglob("*.ckpt"))


def test_the_teacher_is_asked_once(folder: Path, result: dict[str, Any]) -> None:
    """Every trial after the first reads what the first ones asked; it does at every rung, and so do finalists."""
    store, found = result["store"], result["search"]
    assert 2 * 1200 <= store["misses"] <= 2 * 1295
    assert store["hits"] + store["misses"] == EPOCH * (found["trained_epochs"] + found["finalist_epochs"])


def test_no_epoch_is_trained_twice(folder: Path, result: dict[str, Any]) -> None:
    """A trial goes on from where it stood at the rung before."""
    assert trained(folder) == EPOCH * result["search"]["trained_epochs"]


def test_the_test_split_is_read_when_the_student_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not before: nothing is chosen by it."""
    chosen, read = list[Event](), list[bool]()
    whole = Materials.test

    def test(materials: Materials) -> Iterator[Batch]:
        read.append(bool(chosen))
        return whole(materials)

    monkeypatch.setattr(Materials, "test", test)
    sought = recipe({"trials": 2, "rungs": [1], "members": 1, "finalists": 1})
    run(sought, tmp_path / "run", [lambda event: chosen.append(event) if isinstance(event, StudentFound) else None])
    assert read and all(read)


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(
    folder: Path, result: dict[str, Any], tmp_path: Path, after: int
) -> None:
    """Stopped in the middle, the rest of the trials and the student are the same."""
    seen = 0

    def stop(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, TrialBegun | TrialReached)
        if seen == after:
            seen += 1
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(recipe(store={"path": str(folder.parent / "labels")}), tmp_path / "run", [stop])
    found = resume(tmp_path / "run")
    assert weights(found) == weights(result)
    ours, theirs = ([each["rungs"] for each in of["search"]["trials"]] for of in (found, result))
    assert ours == theirs
    assert (tmp_path / "run" / "best.yaml").read_text().replace(str(tmp_path / "run"), "RUN") == (
        folder / "best.yaml"
    ).read_text().replace(str(folder), "RUN")


def test_one_architecture_is_no_family(tmp_path: Path) -> None:
    """Hand-made networks are searched, too, as wide as the budget allows; their members differ by their weights."""
    space = {
        "student.model.arch": ["resnet", "mobilenet"],
        "student.model.options.blocks": [[1, 1], [2, 1]],
        "objective.kd.temperature": {"low": 1.0, "high": 9.0},
    }
    found = run(recipe({"space": space, "trials": 3, "rungs": [1, 2]}, seed=3), tmp_path / "run")
    assert found["student"]["params"] <= 0.3 * found["teacher"]["params"]
    archs = {each["point"]["student.model.arch"] for each in found["search"]["trials"]}
    assert archs <= {"resnet", "mobilenet"}
    for each in found["search"]["trials"]:
        assert 0.95 * 0.3 <= each["costs"]["params"] / found["teacher"]["params"] <= 0.3


def test_nothing_is_compiled_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An automatic engine is one for all trials, and none waits for a compiler; inline teachers are warned of."""
    monkeypatch.setattr("stillhouse.students.trial.compile_guess_s", lambda network: 0.0)
    train = {**TRAIN, "engine": "auto"}
    student = {"model": {"arch": "random_graph", "options": GRAPH}, "train": train}
    sections: dict[str, Any] = {"student": student, "knowledge": {"source": "inline"}}
    events: list[Event] = []
    run(
        recipe({"trials": 2, "rungs": [1], "members": 1, "finalists": 1}, **sections), tmp_path / "run", [events.append]
    )
    assert load(tmp_path / "run" / "recipe.yaml").student.train.engine.compile is False
    assert any("the teacher answers each trial anew" in each.message for each in told(events, Warned))


def test_a_target_is_what_counts(tmp_path: Path) -> None:
    """Latency and memory are those of the device that the recipe describes; what is beyond them is not trained."""
    target = {"macs_per_s": 1e6, "bytes_per_s": 1e12, "memory_bytes": 30_000}
    space = {"student.model.options.widths": [[2, 4], [3, 6], [24, 48]]}
    sought = {"space": space, "trials": 3, "rungs": [1, 2], "budget": {"params": 1.0, "latency_ms": 150.0}}
    student = {"model": {"arch": "random_graph", "options": {**GRAPH, "widths": [2, 4]}}, "train": TRAIN}
    found = run(recipe({**sought, "target": target}, student=student), tmp_path / "run")
    trials, _teacher = found["search"]["trials"], found["teacher"]["params"]
    for each in trials:
        costs = each["costs"]
        assert costs["latency_ms"] == pytest.approx(costs["macs"] / 1e6 * 1e3, rel=0.05)
        beyond = (
            costs["latency_ms"] > 150 or costs["peak_bytes"] > 30_000 or costs["params"] > found["teacher"]["params"]
        )
        assert bool(each["rungs"]) != beyond and each["ended"].startswith("beyond the budget") == beyond
    assert any(each["rungs"] for each in trials)


OWN = """
from torch import nn

def family(classes, channels, width=2, seed=0, depth=1):
    kernels = [(1, 3)[(seed >> at) % 2] for at in range(depth)]
    body = [nn.Conv2d(width, width, each, padding=each // 2) for each in kernels]
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(nn.Conv2d(channels, width, 3), nn.ReLU(), *body, *ends)
"""


def test_a_family_of_ones_own(tmp_path: Path) -> None:
    """A function with the options width and seed: as wide as the budget allows, and each member another network."""
    (tmp_path / "own.py").write_text(OWN)
    model = {"arch": f"{tmp_path / 'own.py'}:family", "options": {"width": 2, "seed": 0, "depth": 4}}
    space = {"student.model.options.depth": {"low": 3, "high": 6}}
    found = run(
        recipe({"space": space, "trials": 3, "rungs": [1, 2]}, student={"model": model, "train": TRAIN}),
        tmp_path / "run",
    )
    most = 0.3 * found["teacher"]["params"]
    assert all(0.6 * most < each["costs"]["params"] <= most for each in found["search"]["trials"])
    seeds = {each["options"]["seed"] for each in found["search"]["finalists"]}
    assert len(seeds) == len(found["search"]["finalists"]) == 2


def test_what_costs_too_much_is_not_trained(tmp_path: Path) -> None:
    """What is beyond a limit is ended at once, and the sampler learns of it; enough others are found."""
    widths = {"student.model.options.widths": [[3, 6]]}
    space = {"student.model.options.merge": ["weighted", "concat"], "objective.kd.weight": {"low": 0.1, "high": 1.0}}
    space |= widths
    budget = {"macs": 0.19}
    graph = {**GRAPH, "top": {"nodes": 3, "kind": "erdos_renyi", "probability": 1.0}}
    student = {"model": {"arch": "random_graph", "options": graph}, "train": TRAIN}
    events: list[Event] = []
    found = run(
        recipe({"space": space, "trials": 4, "rungs": [1, 2], "budget": budget}, student=student),
        tmp_path / "run",
        [events.append],
    )
    ended = told(events, TrialEnded)
    for each in found["search"]["trials"]:
        beyond = each["costs"]["macs"] > 0.19 * found["teacher"]["macs"]
        assert beyond == (not each["rungs"]) == each["ended"].startswith("beyond the budget: macs by")
    assert found["student"]["macs"] <= 0.19 * found["teacher"]["macs"]
    assert ended and all(not each.failed for each in ended)


DULL = """
import torch
from torch import nn

class Dull(nn.Module):
    def __init__(self, classes, channels, width=2):
        super().__init__()
        self.classes, self.weight = classes, nn.Parameter(torch.ones(width))

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None] * self.weight.sum() * torch.ones(self.classes)
"""


def test_a_search_in_which_nobody_learns_says_so(tmp_path: Path) -> None:
    """The best trial is no better than to say the same of all samples."""
    (tmp_path / "dull.py").write_text(DULL)
    student = {"model": {"arch": f"{tmp_path / 'dull.py'}:Dull"}, "train": TRAIN}
    space = {"objective.kd.temperature": {"low": 1.0, "high": 9.0}}
    events: list[Event] = []
    run(
        recipe({"space": space, "trials": 2, "rungs": [1]}, student=student),
        tmp_path / "run",
        [events.append],
    )
    assert any("no trial learned anything" in each.message for each in told(events, Warned))


def test_a_search_begins_with_what_others_found(folder: Path, tmp_path: Path) -> None:
    """The recipe's own point, then the best of the search before, brought into this space; remembered on resume."""
    told_before = json.loads((folder / "result.json").read_text())["search"]["trials"]
    ranked = sorted(
        (each for each in told_before if each["rungs"]),
        key=lambda each: (len(each["rungs"]), [*each["rungs"].values()][-1], -each["trial"]),
    )
    best = [each["point"] for each in ranked[-3:][::-1]]
    space = {**SPACE, "student.model.options.top.nodes": {"low": 2, "high": 3}}
    events: list[Event] = []

    def interrupt(event: Event) -> None:
        events.append(event)
        if isinstance(event, TrialBegun) and event.trial == 1:
            signal.raise_signal(signal.SIGTERM)

    searched = recipe({"after": [str(folder)], "seed": 3, "space": space, "trials": 4})
    with pytest.raises(Interrupted):
        run(searched, tmp_path / "run", [interrupt])
    resume(tmp_path / "run", [events.append])
    points = [each.point for each in told(events, TrialBegun)]
    assert points[0]["objective.kd.temperature"] == searched.objective.kd.temperature  # type: ignore[union-attr]
    nodes = "student.model.options.top.nodes"
    assert points[1:4] == [{**each, nodes: min(each[nodes], 3)} for each in best]


def test_a_family_that_is_too_large_is_beyond_the_budget(tmp_path: Path) -> None:
    """Its smallest network is told as what it costs, the sampler learns of it, and it is no failure of the search."""
    events: list[Event] = []
    wide = {"student.model.options.bottom.nodes": [1, 32], "objective.kd.temperature": {"low": 1.0, "high": 9.0}}
    sought = {"space": wide, "random": 1.0, "trials": 3, "rungs": [1], "members": 1, "finalists": 1, "failures_max": 1}
    result = run(recipe({**sought, "budget": {"params": 0.1, "peak_bytes": 1.0}}), tmp_path / "run", [events.append])
    beyond = [each for each in told(events, TrialEnded) if each.why.startswith("beyond the budget: params by")]
    assert beyond and not any(each.failed for each in beyond)
    assert sum(bool(each["rungs"]) for each in result["search"]["trials"]) == 3
    lost = next(each for each in result["search"]["trials"] if each["trial"] == beyond[0].trial)
    assert lost["costs"]["params"] > 0.1 * result["teacher"]["params"]


def test_a_search_before_must_be_one(tmp_path: Path) -> None:
    """Named before anything is trained."""
    (tmp_path / "other").mkdir()
    with pytest.raises(RecipeError, match=r"search.after.0: .*other holds no search: there is no search.db"):
        run(recipe({"after": [str(tmp_path / "other")]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""Finalists trained by several processes: the same students, whoever trains them and whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.errors import Interrupted
from stillhouse.foundation.events import Evaluated, Event
from stillhouse.foundation.search_events import FinalistLent, TrialLent, TrialWorkerLost
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import resume, run
from stillhouse.runner.search.members import Members

from .lessons import told, weights
from .test_runner_search import GRAPH, recipe
from .test_runner_search_workers import processes

TRAIN = {"epochs": 3, "batch_size": 64, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
FAMILY = {**GRAPH, "bottom": {"kind": "erdos_renyi", "nodes": 4, "probability": 0.5}}


def finals(count: int) -> Recipe:
    """A search of which most is after it; all its trials come to the highest rung."""
    sought = {"random": 1.0, "trials": 2, "rungs": [1], "members": 1, "families": 2, "finalists": 2}
    space = {"objective.kd.temperature": {"low": 1.0, "high": 20.0, "log": True}}
    student = {"model": {"arch": "random_graph", "options": FAMILY}, "train": TRAIN}
    sections: dict[str, Any] = {"fleet": {"trial_workers": count}, "checkpoint": {"every_s": 0}}
    return recipe({**sought, "space": space}, student=student, **sections)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Event], str]:
    """Its finalists trained by one process; its events, and the winner's recipe."""
    folder, events = tmp_path_factory.mktemp("finals") / "run", list[Event]()
    return run(finals(1), folder, [events.append]), events, (folder / "best.yaml").read_text()


def curve(events: list[Event], name: str) -> list[tuple[int, float]]:
    """Validation accuracy of a training, epoch by epoch."""
    return [(each.step, each.accuracy) for each in told(events, Evaluated) if each.phase == name]


def test_finalists_are_the_same_whoever_trains_them(
    tmp_path: Path, settled: tuple[dict[str, Any], list[Event], str]
) -> None:
    """To the last bit, by both workers at once; what the report shows of them is told, too."""
    events: list[Event] = []
    found = run(finals(2), tmp_path / "run", [events.append])
    alone, before, best = settled
    assert found["search"]["finalists"] == alone["search"]["finalists"] and len(alone["search"]["finalists"]) == 4
    assert weights(found) == weights(alone)
    assert len({each.worker for each in told(events, FinalistLent)}) == 2 and not processes()
    name = f"finalist-{found['search']['student']['trial']}-{found['search']['student']['member']}"
    assert curve(events, name) == curve(before, name) and len(curve(events, name)) == TRAIN["epochs"]
    assert (tmp_path / "run" / "best.yaml").read_text() == best.replace("finals0", tmp_path.name)
    assert not list((tmp_path / "run" / "finalists").rglob("*.ckpt"))


def test_a_killed_worker_and_a_signal_among_finalists(
    tmp_path: Path, settled: tuple[dict[str, Any], list[Event], str]
) -> None:
    """One that dies costs an epoch; stopped, the run goes on with what each finalist's checkpoint holds."""
    events: list[Event] = []

    def hurt(event: Event) -> None:
        events.append(event)
        if isinstance(event, FinalistLent) and len(told(events, FinalistLent)) == 2:
            os.kill(processes()[0], signal.SIGKILL)
        if isinstance(event, Evaluated) and event.phase.startswith("finalist") and told(events, TrialWorkerLost):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(finals(2), tmp_path / "run", [hurt])
    assert list((tmp_path / "run" / "finalists").rglob("*.ckpt")) and not processes()
    again: list[Event] = []
    found = resume(tmp_path / "run", [again.append])
    assert weights(found) == weights(settled[0]) and not told(again, TrialLent)
    assert found["search"]["finalists"] == settled[0]["search"]["finalists"]


def test_a_finalist_that_diverges_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next member, whoever trains them."""
    found = []
    for count in (1, 2):
        with monkeypatch.context() as patched:
            patched.setattr("stillhouse.runner.search.members.Members.of", wild(Members.of))
            found.append(run(finals(count), tmp_path / str(count)))
    assert weights(found[0]) == weights(found[1])
    assert [each["member"] for each in found[0]["search"]["finalists"]].count(0) == 0


def wild(of: Callable[..., Any]) -> Callable[..., Any]:
    """The first finalist of each family has a learning rate that nothing learns by."""

    def made(self: Members, point: Any, trial: int, member: int, **more: Any) -> Any:
        materials = of(self, point, trial, member, **more)
        if member != 1000:
            return materials
        train = materials.recipe.student.train
        optimizer = train.optimizer.model_copy(update={"learning_rate": 1e20})
        student = materials.recipe.student.model_copy(
            update={"train": train.model_copy(update={"optimizer": optimizer})}
        )
        return replace(materials, recipe=materials.recipe.model_copy(update={"student": student}))

    return made


def test_the_same_network_is_no_second_finalist(tmp_path: Path) -> None:
    """A hand-made family has one member, which is trained once; where the best has too few, others are."""
    space = {"student.model.options.width": [4, 8], "objective.kd.temperature": [4.0]}
    student = {"model": {"arch": "vgg", "options": {"width": 4, "blocks": [1, 1]}}, "train": TRAIN}
    sought = {"random": 1.0, "trials": 5, "rungs": [1], "members": 1, "finalists": 4, "space": space}
    found = run(recipe({**sought, "budget": {"params": 1.0}}, student=student), tmp_path / "run")["search"]
    points = [each["point"]["student.model.options.width"] for each in found["trials"]]
    assert sorted(points) == [4, 8]
    assert sorted(each["options"]["width"] for each in found["finalists"]) == [4, 8]

"""A search that also varies how samples are seen: each augmentation has its own answers, shared by its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.foundation.errors import RecipeError
from stillhouse.foundation.events import Event, StoreOpened, Warned
from stillhouse.recipe.load import load
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import run
from stillhouse.study.space import augmentations, brought, space_of

from .lessons import told, weights
from .test_runner_api_blockwise import Digits, own
from .test_runner_api_search import SECTIONS
from .test_runner_search import SPACE, recipe
from .test_runner_search_workers import agree, drawn

MIX = {"kind": "mixup", "alpha": 0.4}
VIEWS: dict[str, Any] = {"data.augment.pad_px": [0, 1, 2], "data.augment.mix": [None, MIX]}


def seen(count: int) -> Recipe:
    """A search over augmentations, too."""
    return drawn(count, space={**SPACE, **VIEWS})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Event]]:
    """By one process; only to be read."""
    folder, events = tmp_path_factory.mktemp("views") / "run", list[Event]()
    return folder, run(seen(1), folder, [events.append]), events


def test_each_augmentation_has_its_own_answers(alone: tuple[Path, dict[str, Any], list[Event]]) -> None:
    """Trials with the same share them; those of the recipe's own are in the run's own store."""
    _, result, events = alone
    tried = [
        (each["point"]["data.augment.pad_px"], each["point"]["data.augment.mix"]) for each in result["search"]["trials"]
    ]
    others = {(pad, mix is None) for pad, mix in tried} - {(1, True)}
    assert len(others) > 1
    opened = [each.folder for each in told(events, StoreOpened)]
    assert len(opened) == len(set(opened)) == 1 + len(others)


def test_workers_see_what_the_run_sees(tmp_path: Path, alone: tuple[Path, dict[str, Any], list[Event]]) -> None:
    """Each trial is the same whoever trains it, also where it sees otherwise than the recipe says."""
    agree(run(seen(2), tmp_path / "run"), alone[1])


def test_the_winner_is_made_again_by_its_own_augmentation(tmp_path: Path) -> None:
    """Its recipe says how it saw, other than the one that it began with, and gives the same student to the last bit."""
    few = {"space": {**SPACE, "data.augment.pad_px": [0, 2]}, "trials": 3, "rungs": [1], "members": 1, "finalists": 1}
    result = run(recipe(few), tmp_path / "run")
    again = load(tmp_path / "run" / "best.yaml")
    assert again.data.augment.pad_px in (0, 2)
    assert weights(run(again, tmp_path / "again")) == weights(result)


@pytest.mark.parametrize(
    ("space", "sections", "why"),
    [
        ({"data.augment.pad_px": {"low": 0, "high": 2}}, {}, "can vary by choices only"),
        ({"data.augment.erase": [0.0, 2.0]}, {}, r"erase"),
        ({"data.views": [1, 2]}, {}, "can't vary"),
        ({"data.augment.pad_px": [*range(17)]}, {}, "varies in 17 ways"),
        ({"data.augment.pad_px": [0, 1]}, {"knowledge": {"source": "offline"}}, "offline answers for one augmentation"),
    ],
)
def test_what_can_not_be_seen_so_is_refused(
    space: dict[str, Any], sections: dict[str, Any], why: str, tmp_path: Path
) -> None:
    """Before anything is trained, naming the key."""
    with pytest.raises(RecipeError, match=why):
        run(recipe({"space": {**SPACE, **space}}, **sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Floats(Digits):
    """Digits that are no 8-bit images."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row, label = super().__getitem__(index)
        return row.float() / 255, label


def test_the_recipes_own_mix_is_one_of_the_choices() -> None:
    """Also where a choice leaves out what has a default."""
    own = recipe(
        {"space": {"data.augment.mix": [None, MIX]}}, data={"source": {"kind": "digits"}, "augment": {"mix": MIX}}
    )
    space = space_of(own)
    assert brought(space, own, {}, {"data.augment.mix": None}) == {"data.augment.mix": MIX}


def test_samples_that_can_not_be_seen_so_are_refused(tmp_path: Path) -> None:
    """Floating-point samples have no colour to change."""
    views = {"data.augment.colour": [0.0, 0.2]}
    with pytest.raises(RecipeError, match=r"search.space: data.augment.colour wants 8-bit images"):
        stillhouse.search(own(), Floats(), out=tmp_path / "run", **{**SECTIONS, "search": {"space": views}})


def test_what_it_costs_is_said(tmp_path: Path) -> None:
    """How many augmentations the teacher may be asked about, and that the fleet answers about one of them."""
    assert len(augmentations(seen(1))) == 6
    events = list[Event]()
    fleet = {"workers": 1, "threads": 1, "device": "cpu"}
    few = recipe({"space": VIEWS, "trials": 1, "rungs": [1], "members": 1, "finalists": 1}, fleet=fleet)
    run(few, tmp_path / "run", [events.append])
    assert any("fleet.workers answer for the recipe's own" in each.message for each in told(events, Warned))

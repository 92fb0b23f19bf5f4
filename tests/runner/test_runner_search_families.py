"""Searches over families that are no random graphs: a network with replaced blocks, networks of timm."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.foundation.errors import RecipeError
from stillhouse.foundation.search_events import TrialBegun
from stillhouse.models.weights import weights_digest
from stillhouse.recipe.load import load, validate
from stillhouse.recipe.recipe import as_dict
from stillhouse.runner.environment import named_files
from stillhouse.runner.run import run

from .lessons import told, weights
from .test_runner_search import TRAIN, recipe

SMALL = {"trials": 4, "rungs": [1], "members": 1, "finalists": 1}
VGG = {"arch": "vgg", "options": {"width": 24, "blocks": [1, 1]}}
MIX = "student.model.options.mix"


def of_blocks(**search: Any) -> Any:
    """A search over what stands for the blocks of a network as the teacher is."""
    options = {"of": VGG, "blocks": "block", "mix": ["keep", "keep", "keep"]}
    space = {f"{MIX}.0": ["keep", "separable-1"], f"{MIX}.1": ["separable", "low_rank-4", "grouped-8"]}
    sought = {**SMALL, "budget": {"params": 0.5}, "space": space, **search}
    return recipe(sought, student={"model": {"arch": "blockwise", "options": options}, "train": TRAIN})


def test_blocks_may_be_searched(tmp_path: Path) -> None:
    """Each trial has its mix; the student is loaded from its file, and made again by its recipe to the last bit."""
    events: list[Any] = []
    result = run(of_blocks(random=1.0), tmp_path / "run", [events.append])
    mixes = {tuple(each.point.values()) for each in told(events, TrialBegun)}
    assert len(mixes) > 1 and all(mix[0] in ("keep", "separable-1") for mix in mixes)
    assert result["student"]["params"] <= 0.5 * result["teacher"]["params"]
    loaded = stillhouse.load_student(tmp_path / "run")
    assert weights_digest(loaded) == weights(result)
    again = load(tmp_path / "run" / "best.yaml")
    assert tuple(again.student.model.options["mix"])[:2] in mixes
    assert weights(run(again, tmp_path / "again")) == weights(result)


def test_kinds_of_losses_may_be_searched(tmp_path: Path) -> None:
    """By the same stored answers; an option of one kind varies where that is chosen."""
    kind, more = "objective.kd.kind", "objective.kd.non_target"
    space = {kind: ["kl", "dkd", "dist"], more: {"low": 1.0, "high": 10.0, "when": {kind: "dkd"}}}
    sought = {**SMALL, "space": space, "random": 1.0, "trials": 6}
    found = run(recipe(sought), tmp_path / "run")
    trials = found["search"]["trials"]
    kinds = [each["point"][kind] for each in trials]
    assert set(kinds) == {"kl", "dkd", "dist"}
    assert [more in each["point"] for each in trials] == [each == "dkd" for each in kinds]
    values = {tuple(each["rungs"].values()) for each in trials}
    assert len(values) > 1 and found["store"]["misses"] <= 2 * 1295
    assert weights(run(load(tmp_path / "run" / "best.yaml"), tmp_path / "again")) == weights(found)


def test_workers_build_them_too(tmp_path: Path) -> None:
    """Another process makes the same network of the same words."""
    alone = run(of_blocks(random=1.0), tmp_path / "alone")
    several = of_blocks(random=1.0)
    several = several.model_copy(update={"fleet": several.fleet.model_copy(update={"trial_workers": 2})})
    found = run(several, tmp_path / "run")
    assert {each["trial"]: each["rungs"] for each in found["search"]["trials"]} == {
        each["trial"]: each["rungs"] for each in alone["search"]["trials"]
    }


@pytest.mark.parametrize(
    ("space", "why"),
    [
        ({f"{MIX}.3": ["keep", "skip"]}, r"'3': there are 3 values, counted from 0"),
        ({f"{MIX}.first": ["keep", "skip"]}, r"'first': there are 3 values"),
        ({f"{MIX}.1": ["separable", "separabel"]}, r"mix.1': separabel: .*no replacement 'separabel'"),
        ({f"{MIX}.1.kind": ["a", "b"]}, r"'kind': '1' is a value"),
    ],
)
def test_a_block_that_is_not_there_is_refused(space: dict[str, Any], why: str, tmp_path: Path) -> None:
    """And a replacement that is none; before anything is trained."""
    with pytest.raises(RecipeError, match=why):
        run(of_blocks(space=space), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"size_px": [4, 4]}, r"student.model.size_px: a blockwise student has what student.model.options.of says"),
        ({"normalise": {"mean": [0.1], "std": [0.2]}}, r"student.model.normalise: a blockwise student has what"),
        ({"options": {"of": VGG, "blocks": "block"}}, r"or all of student.model.options \(of, blocks, mix\)"),
    ],
)
def test_what_such_a_network_can_not_say_is_refused(model: dict[str, Any], why: str) -> None:
    """Its form is said in one place, and all of it is."""
    student = as_dict(of_blocks())["student"]
    assert isinstance(student, dict)
    values = {**as_dict(of_blocks()), "student": {**student, "model": {**student["model"], **model}}}
    with pytest.raises(RecipeError, match=why):
        validate(values)


def test_its_weights_are_known_and_do_not_travel(tmp_path: Path) -> None:
    """A file that its network begins with is digested; the network without weights names it no more. Of a blockwise run
    only the teacher's own key is, for its student says nothing before the blocks are chosen.
    """
    (tmp_path / "w.safetensors").write_bytes(b"any")
    given = {**VGG, "weights": str(tmp_path / "w.safetensors")}
    begun = as_dict(of_blocks())
    mix = {"of": given, "blocks": "block", "mix": ["keep", "keep", "keep"]}
    started = validate({**begun, "student": {"model": {"arch": "blockwise", "options": mix}, "train": TRAIN}})
    assert list(named_files(started)) == ["student.model.options.of.weights"]
    assert "w.safetensors" not in started.student.model.without_weights().model_dump_json()
    assert started.student.model.without_weights().options["mix"] == mix["mix"]
    made = validate({**as_dict(started), "search": None, "blockwise": {"budget": {"params": 0.5}}})
    assert not named_files(made)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_networks_of_timm_may_be_searched(tmp_path: Path) -> None:
    """They are taken as they are, with their own options."""
    names = ["timm:mobilenetv3_small_050", "random_graph"]
    drop = {"choices": [0.0, 0.2], "when": {"student.model.arch": names[0]}}
    space = {"student.model.arch": names, "student.model.options.drop_rate": drop}
    result = run(recipe({**SMALL, "budget": {"latency_ms": 1000}, "space": space, "random": 1.0}), tmp_path / "run")
    points = [each["point"] for each in result["search"]["trials"]]
    assert {each["student.model.arch"] for each in points} == set(names)
    assert all(
        ("student.model.options.drop_rate" in each) == (each["student.model.arch"] == names[0]) for each in points
    )

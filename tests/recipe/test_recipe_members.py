"""Several teachers in a recipe: what can be told wrong without looking at a model."""

from __future__ import annotations

import re

import pytest

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.load import dump, parse
from stillhouse.recipe.members import class_numbers

HEAD = "data: {source: {kind: digits}}\nstudent: {model: {arch: mlp}}\nteacher:\n  train: {}\n"
NAMES = ("cat", "dog", "horse")


def recipe(members: str, *overrides: str) -> str:
    return dump(parse(f"{HEAD}  members: {members}\n", overrides))


def test_the_shortest_form() -> None:
    """Two models alone are an average of equals, and the recipe survives being written."""
    text = recipe("[{model: {arch: mlp}}, {model: {arch: resnet}}]")
    members = parse(text).teacher.members
    assert [(each.weight, each.classes, each.outputs) for each in members] == [(1.0, None, "all")] * 2
    assert list(parse(text).teacher.models) == ["teacher.members.0.model", "teacher.members.1.model"]
    assert dump(parse(text)) == text


@pytest.mark.parametrize(
    ("members", "override", "story"),
    [
        ("[{model: {arch: mlp}}]", "", "one member alone is no ensemble: write it as 'model'"),
        ("[]", "", "'model' is missing .or, for several teachers, 'members'"),
        ("[{model: {arch: mlp}}, {model: {arch: mlp}}]", "teacher.model={arch: mlp}", "give one of the two"),
        (
            "[{model: {arch: mlp}}, {model: {arch: mlp}, weight: 0}]",
            "",
            "recipe:5: 'teacher.members.1.weight': .* not 0: leave a member .* out of 'members'",
        ),
        (
            "[{model: {arch: mlp}}, {model: {arch: mlp}, weight: -1}]",
            "",
            "members.1.weight': must be between 0.000001 and",
        ),
        ("[{model: {arch: mlp}}, {model: {arch: mlp}, weight: .inf}]", "", "members.1.weight'"),
        ("[{model: {arch: mlp}}, {model: {arch: mlp}, classes: []}]", "", "members.1.classes': .* at least 1"),
        ("[{model: {arch: mlp}}, {model: {arch: mlp}, classes: [-1]}]", "", "members.1.classes.0'.*greater than"),
        ("[{model: {arch: mlp}}, {model: {arch: mlp}, classes: [true]}]", "", "members.1.classes.0'"),
        ("[{model: {arch: mlp}}, {model: {arch: mlp}, clases: [1]}]", "", "did you mean 'classes'"),
        ("[{model: {arch: mlp}}, {weight: 1}]", "", "'teacher.members.1.model' is missing"),
        ("[{model: {arch: mlp}}, {model: {arch: mlq}}]", "", "unknown architecture 'mlq': did you mean 'mlp'"),
        ("[{model: {arch: mlp}}, {model: {arch: mlp}, outputs: own}]", "", "outputs: own needs classes"),
        (
            "[{model: {arch: mlp}}, {model: {arch: mlp}, classes: [1], outputs: own}]",
            "",
            "a member that is trained here learns all classes: leave its outputs out",
        ),
        (
            "[{model: {arch: mlp}}, {model: {arch: 'timm:resnet18'}}]",
            "teacher.train=",
            "teacher.members.0 has neither 'model.weights' nor 'train': its answers would be random",
        ),
    ],
)
def test_told_wrong(members: str, override: str, story: str) -> None:
    """Each slip is told by its key and how to mend it."""
    with pytest.raises(RecipeError, match=story):
        recipe(members, *([override] if override else []))


def test_a_member_is_changed_by_its_number() -> None:
    """``--set`` reaches an entry of a list by its number, and tells of one that is not there."""
    two = "[{model: {arch: mlp}}, {model: {arch: mlp}}]"
    changed = parse(recipe(two, "teacher.members.1.weight=3", "teacher.members.0={model: {arch: vgg}, weight: 2}"))
    assert [(each.model.arch, each.weight) for each in changed.teacher.members] == [("vgg", 2), ("mlp", 3)]
    for word in ("2", "-1", "weight"):
        with pytest.raises(RecipeError, match=f"'{word}' is none of the list's 2 entries, counted from 0"):
            recipe(two, f"teacher.members.{word}.weight=3")
    with pytest.raises(RecipeError, match=r"--set: 'teacher.members.1.weight'"):
        recipe(two, "teacher.members.1.weight=0")


def numbers(*classes: str) -> tuple[tuple[int, ...], ...]:
    told = ", ".join(f"{{model: {{arch: mlp}}{', classes: ' + each if each else ''}}}" for each in classes)
    return class_numbers(parse(f"{HEAD}  members: [{told}]\n").teacher.members, NAMES)


def test_classes_by_number_and_name() -> None:
    """Classes are told by number or name, in the member's own order; none told means all."""
    assert numbers("[horse, 0]", "", "[1, 2]") == ((2, 0), (0, 1, 2), (1, 2))


@pytest.mark.parametrize(
    ("classes", "story"),
    [
        (("[3]", ""), "teacher.members.0.classes: there is no class 3: the data have 3, 0 to 2"),
        (("", "[hoarse]"), "teacher.members.1.classes: the data have no class 'hoarse': did you mean 'horse'?"),
        (("", "[zebu]"), "no class 'zebu': known here: cat, dog, horse"),
        (("", "[0, 2, 0]"), "teacher.members.1.classes: class 0 (cat) is written twice"),
        (("", "[2, horse]"), "class 2 (horse) is written twice"),
        (("[0]", "[2, 0]"), "nobody answers for class dog: name it in a member's classes"),
        (("[0]", "[0]"), "nobody answers for class dog, horse"),
    ],
)
def test_classes_told_wrong(classes: tuple[str, ...], story: str) -> None:
    """Classes that are not there, are told twice or are forgotten are refused."""
    with pytest.raises(RecipeError, match=re.escape(story)):
        numbers(*classes)

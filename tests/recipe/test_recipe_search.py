"""What may vary, as people write it, and every way to get it wrong."""

from __future__ import annotations

import pytest

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.load import dump, parse
from stillhouse.recipe.recipe import Recipe
from stillhouse.recipe.search import ChoiceSection, NumberSection

BASE = """\
data: {source: {kind: digits}}
teacher: {model: {arch: mlp}, train: {}}
student: {model: {arch: random_graph}}
search:
  budget: {params: 0.5}
  space:
"""
FORMS = "[a, b], {low: a, high: b}, {choices: [a, b]} or {rest_of: another key}"


def varying(*lines: str) -> str:
    return BASE + "".join(f"    {each}\n" for each in lines)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "k: {lo: 2, high: 4}",
            ["'search.space.k.low' is missing", "unknown key 'search.space.k.lo': did you mean 'low'"],
        ),
        ("k: {low: 20, high: 1}", ["'search.space.k': low 20 is above high 1"]),
        ("k: {low: 0, high: 1, log: true}", ["'search.space.k': log: low must be above 0, not 0"]),
        ("k: {low: a, high: 4}", ["'search.space.k.low': must be a valid integer or a valid number, not 'a'"]),
        ("k: 3", [f"'search.space.k': must be {FORMS}, not 3"]),
        ("a.b.c: {choices: [1, 1]}", ["'search.space.a.b.c': the same choice stands there twice"]),
        ("a.b.c: [1, 1]", ["'search.space.a.b.c': the same choice stands there twice"]),
        ("k: {choices: [1, 2], wenn: {}}", ["unknown key 'search.space.k.wenn': did you mean 'when'?"]),
    ],
)
def test_a_range_that_is_none_is_told_in_its_line(line: str, told: list[str]) -> None:
    """Only what its form wants, in the words of a recipe."""
    with pytest.raises(RecipeError) as refused:
        parse(varying("student.train.batch_size: [1, 2]", line), name="my.yaml")
    lines = str(refused.value).splitlines()
    assert len(lines) == len(told)
    for said, wanted in zip(lines, told, strict=True):
        assert said.startswith("my.yaml:8: ") and wanted in said


def test_set_replaces_one_key_of_the_space() -> None:
    """Keys of the space have dots themselves: one that is there, a part of it, or a new one."""
    text = varying("objective.kd.temperature: {low: 1, high: 20, log: true}")
    sets = ["search.space.objective.kd.temperature.high=7", "search.space.student.train.batch_size=[16, 32]"]
    found = parse(text, sets).search
    assert found is not None
    assert found.space == {
        "objective.kd.temperature": NumberSection(low=1, high=7, log=True),
        "student.train.batch_size": ChoiceSection(choices=(16, 32)),
    }
    only = parse(text, ["search.space.objective.kd.temperature=[2, 4]"]).search
    assert only is not None and only.space == {"objective.kd.temperature": ChoiceSection(choices=(2, 4))}
    with pytest.raises(RecipeError, match=r"--set: 'search.space.a.b': must be \[a, b\]"):
        parse(text, ["search.space.a.b=7"])


def test_each_form_survives_its_dump() -> None:
    """What is written out is read as the same."""
    lines = ["a.a: [1, b]", "a.b: {low: 1, high: 2}", "a.c: {low: 0.5, high: 2, log: true}", "a.d: {rest_of: a.c}"]
    recipe = parse(varying(*lines, "a.e: {choices: [[1], {x: 1}], when: {a.a: b}}"))
    assert parse(dump(recipe)) == recipe


def test_editors_take_every_form() -> None:
    """The schema knows a bare list."""
    space = Recipe.model_json_schema()["$defs"]["SearchSection"]["properties"]["space"]
    forms = space["additionalProperties"]["anyOf"]
    assert {"items": {}, "type": "array"} in forms and len(forms) == 4


def test_odd_keys_are_told_as_they_are_written() -> None:
    """A key in brackets is no form's name; a space that is none is told so."""
    with pytest.raises(RecipeError, match=r"unknown key '\(a\)'"):
        parse(BASE + "    k: [1, 2]\n(a): 3\n")
    with pytest.raises(RecipeError, match=r"'search\.space\.\(a\)': must be"):
        parse(varying("(a): 3"))
    with pytest.raises(RecipeError, match="'space' is a value, not a section"):
        parse(varying("k: [1, 2]"), ["search.space=5", "search.space.a.b=[1, 2]"])

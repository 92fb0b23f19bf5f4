"""The recipe's section for a fleet of workers: what it takes, and how it refuses."""

from __future__ import annotations

import pytest

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.fleet import FleetSection
from stillhouse.recipe.load import dump, parse

BASE = """\
data: {source: {kind: digits}}
teacher: {model: {arch: mlp}, train: {}}
student: {model: {arch: mlp}}
"""


@pytest.mark.parametrize(("written", "limits"), [("0", (0, 0)), ("3", (3, 3)), ("[1, 4]", (1, 4)), ("[2, 2]", (2, 2))])
def test_workers_are_a_number_or_a_range(written: str, limits: tuple[int, int]) -> None:
    """One number is both limits; the recipe reads back as it was dumped."""
    recipe = parse(BASE, [f"fleet.workers={written}"])
    assert recipe.fleet.workers_range == limits
    assert parse(dump(recipe)) == recipe


def test_no_fleet_unless_asked_for() -> None:
    """A recipe that says nothing of a fleet has none."""
    assert parse(BASE).fleet.workers_range == (0, 0)


@pytest.mark.parametrize(("written", "limits"), [("1", (1, 1)), ("3", (3, 3)), ("[1, 4]", (1, 4))])
def test_students_are_a_number_or_a_range(written: str, limits: tuple[int, int]) -> None:
    """One number is both limits; without a word there is one student."""
    recipe = parse(BASE, [f"fleet.students={written}", "student.train.accumulate=4"])
    assert recipe.fleet.students_range == limits
    assert parse(dump(recipe)) == recipe
    assert parse(BASE).fleet.students_range == (1, 1)


@pytest.mark.parametrize(
    ("most", "batch_size", "mend"),
    [(3, 128, "with student.train.accumulate: 4"), (3, 2, "with a larger student.train.batch_size")],
)
def test_every_student_has_a_micro_batch(most: int, batch_size: int, mend: str) -> None:
    """More students than micro-batches are refused; what helps a run that is begun is said, and what a new one."""
    wanted = rf"^recipe: fleet.students: {most} .*student.train.accumulate is 2: ask for 2 at most, or begin .* {mend}"
    asked = [f"fleet.students=[1, {most}]", "student.train.accumulate=2", f"student.train.batch_size={batch_size}"]
    with pytest.raises(RecipeError, match=wanted):
        parse(BASE, asked)


def test_a_live_student_stays_alone() -> None:
    """A student that only the caller's process has can't be trained in others."""
    with pytest.raises(RecipeError, match=r"fleet.students: a student handed over from Python .* file.py:function"):
        parse(BASE, ["fleet.students=2", "student.train.accumulate=2", "student.model.arch=live"])


@pytest.mark.parametrize(
    ("words", "story"),
    [
        ("students=0", r"'fleet.students': must be one number of students \(at least 1\), or \[min, max\], not 0"),
        ("students=[0, 2]", r"'fleet.students': \[0, 2\]: min is at least 1$"),
        ("students=[3, 2]", r"'fleet.students': \[3, 2\]: max is less than min; did you mean \[2, 3\]"),
        ("students=[1, x]", r"'fleet.students': must be one number of students \(at least 1\), or \[min, max\]"),
        ("workers=-1", r"'fleet.workers': must be one number of workers \(0: no fleet\), or \[min, max\], not -1"),
        ("workers=many", r"'fleet.workers': must be one number of workers .* not 'many'"),
        ("workers=1.5", r"'fleet.workers': must be one number of workers .* not 1.5"),
        ("workers=yes", "workers: true or false makes no sense here"),
        ("workers=[1, 2, 3]", r"'fleet.workers': must be one number of workers .*, or \[min, max\], not \[1, 2, 3\]"),
        ("workers=[1, x]", r"'fleet.workers': must be one number of workers .*, or \[min, max\]"),
        ("workers=[0, 3]", r"'fleet.workers': \[0, 3\]: min is at least 1; for no fleet at all write 0"),
        ("workers=[4, 2]", r"'fleet.workers': \[4, 2\]: max is less than min; did you mean \[2, 4\]"),
        ("low=0.8", "'fleet': low 0.8 is not below high 0.75"),
        ("window_mb=0", "'fleet.window_mb': "),
        ("patience_s=-1", "'fleet.patience_s': "),
        ("threads=all", "'fleet.threads': must be a valid integer or 'auto', not 'all'"),
        ("threads=0", "'fleet.threads': must be greater than 0 or 'auto', not 0"),
        ("device=gpu", "'fleet.device': must be auto, cpu, cuda, cuda:NUMBER or mps, not 'gpu'"),
        ("without_teachers=wait", "'fleet.without_teachers': .*'inline', 'stored_only', 'hard_labels' or 'stop'"),
        ("patience=30", "unknown key 'fleet.patience': did you mean 'patience_s'"),
    ],
)
def test_a_wrong_fleet_is_refused_by_key(words: str, story: str) -> None:
    """Each wrong value is told with its key and, where one can guess, the mend."""
    with pytest.raises(RecipeError, match=story):
        parse(BASE, [f"fleet.{words}"])


@pytest.mark.parametrize(
    "words", ["workers=-1", "workers=[0, 3]", "workers=[4, 2]", "workers=x", "workers=[true, 2]", "threads=0"]
)
def test_one_mistake_is_one_line(words: str) -> None:
    """That a number and a range are allowed does not make two complaints of one."""
    with pytest.raises(RecipeError) as found:
        parse(BASE, [f"fleet.{words}"])
    assert len(str(found.value).splitlines()) == 1


def test_a_mistake_is_told_where_it_was_written() -> None:
    """Of two keys that don't fit together the one that was written is shown, not the other one's default."""
    for text, asked, place in (
        ("fleet:\n  threads: 1\n  high: 0.2\n", [], "recipe:6: 'fleet'"),
        ("fleet:\n  threads: 1\n", ["fleet.high=0.2"], "--set: 'fleet'"),
        ("fleet: {students: 2}\n", [], "recipe:4: fleet.students"),
    ):
        with pytest.raises(RecipeError) as found:
            parse(BASE + text, asked)
        assert str(found.value).startswith(place)


def test_every_key_is_described() -> None:
    """The schema, which editors show, explains every key of the section."""
    assert all(field.description for field in FleetSection.model_fields.values())

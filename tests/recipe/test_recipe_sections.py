"""What sections ask of their values, one rule at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.blockwise import BlockwiseSection
from stillhouse.recipe.load import dump, parse, validate

BASE = """\
data: {source: {kind: digits}}
teacher: {model: {arch: mlp}, train: {}}
student: {model: {arch: mlp}}
"""


def test_numbers_handed_over_from_python() -> None:
    """Numpy's integers are integers; the recipe keeps plain ones."""
    recipe = validate({**yaml.safe_load(BASE), "seed": np.int64(3), "checkpoint": {"keep": np.uint8(4)}})
    assert (type(recipe.seed), recipe.seed, type(recipe.checkpoint.keep)) == (int, 3, int)
    assert parse(dump(recipe)) == recipe


@pytest.mark.parametrize("options", ["{pretrained: true}", "{checkpoint_path: x.pth}"])
def test_a_timm_teacher_must_be_trained_by_somebody(options: str) -> None:
    """A timm teacher without weights, training or timm's own weights would answer at random."""
    bare = ["teacher.train=", "teacher.model={arch: 'timm:resnet18'}"]
    for words in (bare, [*bare, "teacher.model.options={pretrained: false, drop_rate: 0.1}"]):
        with pytest.raises(RecipeError, match=r"neither 'model.weights' nor 'train' nor options.pretrained: .* random"):
            parse(BASE, words)
    parse(BASE, [*bare, f"teacher.model.options={options}"])
    parse(BASE, [*bare, "teacher.train={epochs: 1}"])
    parse(BASE, [*bare, f"teacher.model.weights={__file__}"])
    with pytest.raises(RecipeError, match=r"weights': .* is a folder"):
        parse(BASE, [*bare, "teacher.model.weights=."])


@pytest.mark.parametrize(
    ("code", "story"),
    [
        ("def g(): ...", "defines no function 'f' .it defines: g."),
        ("", "it defines: nothing"),
        ("def f(:", "mine.py, line 1: invalid syntax"),
        ("raise SystemExit", "defines no function"),
    ],
)
def test_code_is_looked_at_but_not_run(code: str, story: str, tmp_path: Path) -> None:
    """A function named in a recipe must be there at the file's top; looking does not run the file."""
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(RecipeError, match=story):
        parse(BASE, [f"teacher.model.arch={tmp_path / 'mine.py'}:f"])
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\ndef f(): ...\n")
    parse(BASE, [f"teacher.model.arch={tmp_path / 'mine.py'}:f"])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("words", "epochs", "views"),
    [
        ([], 9, 1),
        (["data.augment={flip: true}"], 9, 9),
        (["data.augment={flip: true}", "data.views=4"], 9, 4),
        (["data.augment={flip: true}", "data.views=40"], 9, 9),
        (["data.crop_px=[6, 6]", "data.views=2"], 9, 2),
        (["data.views=4"], 9, 1),
    ],
)
def test_views_are_counted_only_where_they_differ(words: list[str], epochs: int, views: int) -> None:
    """Where nothing is random all views are one, so that a teacher is asked about it once."""
    assert parse(BASE, words).data.views_in(epochs) == views


def test_engines_are_all_auto_in_one_word() -> None:
    """``engine: auto`` leaves every setting open; a settled engine says so."""
    recipe = parse(BASE, ["teacher.engine=auto", "student.train.engine={precision: auto, compile: true}"])
    assert set(recipe.teacher.engine.model_dump().values()) == {"auto"} and not recipe.teacher.engine.settled
    assert not recipe.student.train.engine.settled and parse(BASE).student.train.engine.settled
    assert parse(dump(recipe)) == recipe


def test_one_key_of_an_automatic_engine_can_be_set() -> None:
    """``--set`` of one key under ``engine: auto`` leaves the others open."""
    engine = parse(BASE, ["teacher.engine=auto", "teacher.engine.batch_size=64"]).teacher.engine
    assert engine.batch_size == 64 and engine.precision == engine.compile == engine.runtime == "auto"


@pytest.mark.parametrize("value", ["3", "fast", "[true]"])
def test_a_switch_is_true_false_or_auto(value: str) -> None:
    """Anything else is refused in one line."""
    with pytest.raises(RecipeError, match=r"'student.train.engine.compile': must be true, false or auto") as found:
        parse(BASE, [f"student.train.engine.compile={value}"])
    assert len(str(found.value).splitlines()) == 1


def test_top_logits_need_a_number() -> None:
    """Neither k nor mass is an error; mass alone, or both (k settled from it), is fine."""
    with pytest.raises(RecipeError, match="give k, or mass"):
        parse(BASE, ["knowledge.logits={kind: top}"])
    parse(BASE, ["knowledge.logits={kind: top, mass: 0.9}"])
    assert parse(BASE, ["knowledge.logits={kind: top, mass: 0.9, k: 3}"]).knowledge.logits.k == 3


def test_sizes_as_people_write_them() -> None:
    """A limit may be written with a unit; what is no size is refused with an example."""
    assert parse(BASE, ["store.bytes_max=4GB"]).store.bytes_max == 4 * 10**9
    assert parse(BASE, ["store.bytes_max=1.5 GiB"]).store.bytes_max == 3 * 2**29
    with pytest.raises(RecipeError, match=r"'store.bytes_max': 'lots' is no size: write it like 500MB"):
        parse(BASE, ["store.bytes_max=lots"])


def test_power_of_a_machine() -> None:
    """A power model needs both its numbers, and a busy machine draws no less than one at rest."""
    assert parse(BASE, []).compute.power is None
    power = parse(BASE, ["compute.power={idle_w: 10, busy_w: 10}"]).compute.power
    assert power is not None and power.model.joules(2.0, 100.0) == 20.0
    with pytest.raises(RecipeError, match="busy_w is 10, less than idle_w, 40: were they exchanged"):
        parse(BASE, ["compute.power={idle_w: 40, busy_w: 10}"])
    with pytest.raises(RecipeError, match=r"compute\.power\.busy_w"):
        parse(BASE, ["compute.power={idle_w: 40}"])


def test_children_that_are_numbered_may_be_named_so() -> None:
    """YAML reads ``blocks: [0, 3]`` as numbers; torch calls these children "0" and "3"."""
    found = BlockwiseSection.model_validate({"blocks": [0, "3.1", 12], "budget": {"params": 0.5}})
    assert found.blocks == ("0", "3.1", "12")
    with pytest.raises(ValidationError):
        BlockwiseSection.model_validate({"blocks": [True], "budget": {"params": 0.5}})

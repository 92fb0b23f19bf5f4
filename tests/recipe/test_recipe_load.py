"""From YAML to a recipe and back, and every way to get it wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.load import differences, dump, load, parse, validate
from stillhouse.recipe.recipe import Recipe, as_dict

BASE = """\
data: {source: {kind: digits}}
teacher: {model: {arch: mlp}, train: {}}
student: {model: {arch: mlp}}
"""

FRACTIONS = st.floats(0.01, 0.99)
POSITIVE = st.floats(1e-6, 1e6)
SIZES = st.tuples(st.integers(1, 512), st.integers(1, 512)).map(list)


def section(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


def with_kind(kind: str, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"kind": st.just(kind)}, optional=optional)


MODELS = st.one_of(
    st.fixed_dictionaries(
        {"arch": st.sampled_from(["resnet", "vgg", "mobilenet"])},
        optional={
            "options": section(width=st.integers(1, 64), blocks=st.lists(st.integers(1, 4), min_size=1, max_size=6)),
            "normalise": st.one_of(st.just("auto"), st.just({"mean": [0.5, 0.25, 0.1], "std": [1.0, 2.0, 0.1]})),
            "size_px": SIZES,
            "channels": st.sampled_from([1, 3, None]),
        },
    ),
    st.fixed_dictionaries({"arch": st.just("mlp"), "options": section(hidden=st.lists(st.integers(1, 99)))}),
    st.fixed_dictionaries(
        {"arch": st.just("timm:resnet18"), "options": st.dictionaries(st.text(), st.none() | st.booleans() | st.text())}
    ),
)
TRAINING = section(
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(1, 10**5),
    optimizer=st.one_of(
        with_kind("sgd", learning_rate=POSITIVE, momentum=FRACTIONS, nesterov=st.booleans()),
        with_kind("adamw", learning_rate=POSITIVE, betas=st.tuples(FRACTIONS, FRACTIONS).map(list)),
    ),
    warmup_epochs=st.just(0),
    clip_norm=st.none() | POSITIVE,
    ema_decay=st.none() | FRACTIONS,
    engine=st.just("auto") | section(precision=st.sampled_from(["fp32", "bf16", "auto"]), compile=st.booleans()),
)
FEATURES = st.lists(st.fixed_dictionaries({"teacher": st.text(), "student": st.text()}), max_size=2)
RECIPES = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries(
            {"source": st.sampled_from([{"kind": "digits"}, {"kind": "live"}])},
            optional={
                "size_px": st.none() | SIZES,
                "validation_fraction": FRACTIONS,
                "augment": section(pad_px=st.integers(0, 9), flip=st.booleans(), colour=FRACTIONS),
                "views": st.none() | st.integers(1, 9),
                "bad_samples": st.sampled_from(["stop", "skip"]),
            },
        ),
        "teacher": st.fixed_dictionaries({"model": MODELS, "train": TRAINING}),
        "student": st.fixed_dictionaries({"model": MODELS}, optional={"train": TRAINING}),
    },
    optional={
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True),
        "seed": st.integers(0, 2**70),
        "objective": section(kd=section(temperature=POSITIVE), features=FEATURES),
        "compute": section(device=st.sampled_from(["auto", "cpu", "cuda:1"]), threads=st.sampled_from(["auto", 3])),
    },
)


@settings(deadline=None, max_examples=60)
@given(values=RECIPES)
def test_a_dumped_recipe_is_read_back_equal(values: dict[str, Any]) -> None:
    """``parse(dump(r)) == r``, and the dump says every value, defaults too."""
    recipe = validate(values)
    text = dump(recipe)
    assert parse(text) == recipe
    assert yaml.safe_load(text) == as_dict(recipe)
    assert differences(as_dict(recipe), as_dict(parse(text))) == []


def test_a_recipe_is_frozen_and_complete() -> None:
    """A recipe can't be changed after it was read, and holds the defaults of its sections."""
    recipe = parse(BASE)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1
    assert recipe.student.model.options == {"hidden": [64]}
    assert recipe.control.seeds == 1


def test_overrides_replace_single_values_in_order() -> None:
    """``--set`` makes sections, replaces values, takes YAML, and the last word wins."""
    given_ = ["seed=1", "student.train.epochs=7", "objective.kd=", "seed=2", "data.augment={flip: true, pad_px: 2}"]
    recipe = parse(BASE, given_)
    assert (recipe.seed, recipe.student.train.epochs, recipe.objective.kd) == (2, 7, None)
    assert (recipe.data.augment.flip, recipe.data.augment.pad_px) == (True, 2)


def test_numbers_as_people_write_them() -> None:
    """``1e-3``, which YAML 1.1 takes for a word, is a number, and a date is a word."""
    recipe = parse(BASE + "name: 2024-01-01\n", ["student.train.optimizer={kind: adamw, learning_rate: 1e-3}"])
    assert recipe.student.train.optimizer.learning_rate == 1e-3
    assert recipe.name == "2024-01-01"


def test_paths_are_made_absolute_and_variables_expanded(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input path is expanded and made absolute, so that the run's recipe names the same file from anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINY", "tiny")
    for written in ("tiny.parquet", "${TINY}.parquet", "${NOT_SET_AT_ALL:-tiny}.parquet", "./x/../tiny.parquet"):
        recipe = parse(BASE, [f"data.source={{kind: parquet, train: '{written}'}}"])
        assert recipe.data.source.model_dump()["train"] == str(tiny_data)


def test_a_default_from_the_environment_is_read_with_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stores lie may be said by a variable, whenever it was set; one that names nobody's home is told."""
    monkeypatch.setenv("STILLHOUSE_LABELS", "elsewhere")
    assert parse(BASE).store.path == "elsewhere"
    monkeypatch.setenv("STILLHOUSE_LABELS", "~nobody-of-that-name/labels")
    with pytest.raises(RecipeError, match=r"STILLHOUSE_LABELS.*can't be a path"):
        parse(BASE)


def test_differences_are_named_by_key() -> None:
    """What differs between two recipes is told as key, old and new value."""
    before, after = parse(BASE), parse(BASE, ["student.train.epochs=3", "objective.kd="])
    told = differences(as_dict(before), as_dict(after))
    assert told[0] == "student.train.epochs: 10 -> 3"
    assert len(told) == 2
    assert told[1].startswith("objective.kd: ")


def test_schema_describes_the_sections() -> None:
    """The JSON Schema names every section, and refuses unknown keys."""
    schema = Recipe.model_json_schema()
    assert set(schema["properties"]) >= {"data", "teacher", "student", "objective", "control"}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("line", "story"),
    [
        ("sed: 1", "recipe:4: unknown key 'sed': did you mean 'seed'?"),
        ("seed: 1.5", "recipe:4: 'seed': .*not 1.5"),
        ("seed: -1", "recipe:4: 'seed': .*not -1"),
        ("seed: 3.0", "recipe:4: 'seed': .*valid integer, not 3.0"),
        ("seed: '3'", "recipe:4: 'seed': .*valid integer, not '3'"),
        ("compute: {threads: 2.0}", "'compute.threads': .*valid integer or 'auto', not 2.0"),
        ("checkpoint: {keep: '3'}", "'checkpoint.keep': .*valid integer, not '3'"),
        ("seed: yes", "seed: true or false makes no sense"),
        ("name: ../x", "recipe:4: 'name'"),
        ("seed: 1\nseed: 2", "recipe:5: 'seed' is written twice"),
        ("seed: {", "recipe:5: broken YAML"),
        ("\tseed: 1", "recipe:4: broken YAML"),
        ("---\nseed: 1", "broken YAML: but found another document"),
        ("seed: \x07", "broken YAML"),
        ("seed: !!int abc", "recipe:4: 'abc' is no int"),
        ("seed: " + "1" * 5000, "recipe:4: '1+' is no int"),
        ("seed: 2024-13-45", "'seed'"),
        ("name: !!binary aGk=", "recipe:4: the tag .* is refused"),
        ("<<: {seed: 1}", "recipe:4: .*merges"),
        ("? [a]\n: 1", "recipe:4: a key must be a plain word"),
        ("x: &x [*x]", "an alias that contains itself"),
        ("x: " + "[" * 3000, "nested too deeply"),
        ("compute: {threads: 0}", "'compute.threads': .* not 0"),
        ("compute: {device: gpu}", "'compute.device'"),
        ("control: 3", "'control'.*not 3"),
        ("objective: {cross_entropy: 0, kd: null}", "nothing to learn"),
        ("objective: {features: [{teacher: a}]}", "'objective.features.0.student' is missing"),
    ],
)
def test_a_wrong_line_is_told_with_its_place(line: str, story: str) -> None:
    """A wrong line is refused with file, line, key and, for a misspelt key, the nearest name."""
    with pytest.raises(RecipeError, match=story) as found:
        parse(BASE + line + "\n")
    assert len(str(found.value).splitlines()) <= 2  # a value that may be one of two kinds is refused as each


@pytest.mark.parametrize(
    ("override", "story"),
    [
        ("data.source.kind=foo", "'data.source.kind' must be one of 'digits', 'parquet'"),
        ("data.source.trian=1", "unknown key 'data.source.trian'"),
        ("data.source={kind: parquet}", "'data.source.train' is missing"),
        ("data.source={kind: parquet, train: nope.parquet}", "nope.parquet does not exist"),
        ("data.source={kind: parquet, train: ~no-such-user/x}", "home directory"),
        ("data.source={kind: parquet, train: " + "x" * 300 + "}", "too long"),
        ("data.source={kind: parquet, train: '${NOT_SET_AT_ALL}'}", "variable NOT_SET_AT_ALL is not set"),
        ("data.source={kind: function, train: mine.py}", "not of the form file.py:function"),
        ("data.source={kind: function, train: 'mine.py:f'}", "mine.py does not exist"),
        ("data.size_px=[8]", "'data.size_px' holds too few values: number 2 is missing"),
        ("data.size_px=[8, 8, 8]", "'data.size_px': must hold at most 2 values, not 3"),
        ("data.size_px=8", "'data.size_px': must be a list, not 8"),
        ("name=a/b", "'name': must begin with a letter or digit, .*, not 'a/b'"),
        ("student.train.loss_ratio_max=x", "'student.train.loss_ratio_max': must be a number, not 'x'"),
        ("data.size_px=[8, yes]", "'data.size_px.1': .*valid integer, not True"),
        ("data.size_px=[8, 8.0]", "'data.size_px.1': .*valid integer, not 8.0"),
        ("student.train.epochs='10'", "'student.train.epochs': .*valid integer, not '10'"),
        ("data.augment.pad_px=2.0", "'data.augment.pad_px': .*valid integer, not 2.0"),
        ("teacher.model.options.hidden=['8']", "options of mlp: 'hidden.0': .*valid integer"),
        ("data.size_px=[8, 0]", "'data.size_px.1': .*not 0"),
        ("data.views=true", "views: true or false makes no sense"),
        ("data.validation_fraction=1.0", "'data.validation_fraction'"),
        ("teacher.model.arch=resnt", "did you mean 'resnet'"),
        ("teacher.model.options.widht=3", "options of mlp: 'widht'"),
        ("teacher.model.normalise={mean: [1]}", "'teacher.model.normalise.std' is missing"),
        ("teacher.model.normalise={mean: [1], std: [0]}", "'teacher.model.normalise.std.0'"),
        ("teacher.train=", "neither 'model.weights' nor 'train'"),
        ("teacher.train.accumulate=3", "accumulate 3 does not divide batch_size 128"),
        ("student.train.epochs=ten", "'student.train.epochs'.*not 'ten'"),
        ("student.train.warmup_epochs=.inf", "finite"),
        ("student.train.optimizer={learning_rate: 1}", "'student.train.optimizer' needs a 'kind'"),
        ("student.train.engine.precision=fp8", "'fp32', 'bf16', 'fp16' or 'auto', not 'fp8'"),
        ("student.engine=auto", "--set: unknown key 'student.engine': did you mean 'student.train.engine'"),
        ("student.engine.compile=true", "--set: unknown key 'student.engine': did you mean 'student.train.engine'"),
        ("student.precision=bf16", "did you mean 'student.train.engine.precision'"),
        ("engine=auto", "unknown key 'engine': did you mean 'fleet.engine' or 'teacher.engine'"),
        ("epochs=3", "did you mean 'blockwise.train.epochs' or 'student.train.epochs' or 'teacher.train.epochs'"),
        ("knowledge.logits=fp16", r"{kind: dense, dtype: fp32\|fp16} or {kind: top, k: ..., mass: ...}, not 'fp16'"),
        ("knowledge.logits.dtype=fp16", r"--set: 'knowledge.logits' needs a 'kind': {kind: dense, dtype: fp32\|fp16}"),
        ("seed", "write it as section.key=value"),
        ("=1", "write it as section.key=value"),
        ("data.source.kind.x=1", "'kind' is a value, not a section"),
        ("seed={", "--set seed={.*broken YAML"),
        ("seed={a: 1, a: 2}", "'a' is written twice"),
        ("seed=!!python/name:os.system", "--set .*the tag .* is refused"),
    ],
)
def test_a_wrong_override_is_told_by_its_key(override: str, story: str) -> None:
    """A wrong ``--set`` is refused in one line that names the key."""
    with pytest.raises(RecipeError, match=story) as found:
        parse(BASE, [override])
    assert len(str(found.value).splitlines()) == 1


def test_all_errors_are_told_at_once() -> None:
    """Several mistakes are told together, each on its own line."""
    with pytest.raises(RecipeError) as found:
        parse(BASE + "sed: 1\ncontrl: {}\n")
    assert str(found.value).splitlines() == [
        "recipe:4: unknown key 'sed': did you mean 'seed'?",
        "recipe:5: unknown key 'contrl': did you mean 'control'?",
    ]


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [SPRUNG]",
        "!!python/object/new:os.mkdir [SPRUNG]",
        "!!python/name:os.mkdir",
        "!!python/module:antigravity",
        "!mine {a: 1}",
    ],
)
def test_object_tags_make_nothing(tag: str, tmp_path: Path) -> None:
    """A tag that would make an object is refused by name, and runs nothing."""
    sprung = tmp_path / "sprung"
    for text in (BASE + f"x: {tag}\n", f"{tag}\n"):
        with pytest.raises(RecipeError, match=r"the tag '.*' is refused"):
            parse(text.replace("SPRUNG", str(sprung)))
    assert not sprung.exists()


def test_aliases_may_be_used_but_not_to_blow_up() -> None:
    """Anchors and aliases are read; a few lines that stand for gigabytes are refused quickly."""
    text = "data: {source: {kind: digits}}\nteacher: {model: &m {arch: mlp}, train: {}}\nstudent: {model: *m}\n"
    assert parse(text).student.model.arch == "mlp"
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(RecipeError, match="more than 20,000 values"):
        parse("\n".join(lines))


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    """A missing, binary, empty or foreign file is refused by name."""
    path = tmp_path / "x.yaml"
    with pytest.raises(RecipeError, match=r"x\.yaml: there is no such recipe"):
        load(path)
    for content, story in (
        (b"\xff\xfe\x00\x01", "can't be read"),
        (b"", "'data' is missing"),
        (b"- 1\n", "a mapping of sections, not list"),
        (b"words", "a mapping of sections, not str"),
    ):
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=story):
            load(path)
    with pytest.raises(RecipeError, match="can't be read"):
        load(tmp_path)

"""A student ends in the same bits whatever lay in the store; and what another question filled is never read."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.foundation.errors import StillhouseError
from stillhouse.foundation.events import Event, StoreOpened, Warned
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import run
from stillhouse.store.label_store import LabelStore

from .lessons import SEEN, Asked, answered, damage, lesson, only_store, told, weights

NUMBERS = itertools.count()
SLOW = pytest.mark.slow
DIGITS = {"source": {"kind": "digits"}}
MIXED: dict[str, Any] = {
    "data": {
        **DIGITS, "augment": {"pad_px": 1, "mix": {"kind": "mixup", "alpha": 0.4}}, "views": 2
    }
}  # fmt: skip
FEATURES: dict[str, Any] = {
    "objective": {"features": [{"teacher": "stage1", "student": "stage1", "weight": 0.3}]},
}
FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"logits": {"kind": "dense"}},
    "fp16": {"logits": {"kind": "dense", "dtype": "fp16"}},
    "top": {"logits": {"kind": "top", "k": 3}},
    "top of all": {"logits": {"kind": "top", "k": 10}},
}


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


def half_fill(tmp_path: Path, store: Path, kind: str, sections: dict[str, Any]) -> None:
    """Another run with another student, batch and number of epochs fills a part of a store."""
    train = {"epochs": 1, "batch_size": 48, "warmup_epochs": 0}
    other = {**sections, "student": {"model": {"arch": "mlp", "options": {"hidden": [4]}}, "train": train}}
    if "features" in sections.get("objective", {}):
        other["student"]["model"] = {"arch": kind if kind == "mlp" else "vgg"}
        if kind == "conv":
            other["student"]["model"] = {"arch": "resnet", "options": {"width": 3, "blocks": [1, 1]}}
    run(lesson(store, kind=kind, **other), tmp_path / f"filling-{next(NUMBERS)}")
    folder = only_store(store)
    damage(folder, 0, list(range(0, 1797, 3)), "zeros")


def ends(tmp_path: Path, kind: str, sections: dict[str, Any]) -> dict[str, str]:
    """The student's digest by source and state of the store."""
    found, full, half = {}, tmp_path / "full", tmp_path / "half"
    half_fill(tmp_path, half, kind, sections)
    for name, source, store in (
        ("inline", "inline", full), ("empty", "stored", full), ("full", "stored", full), ("half", "stored", half),
        ("auto", "auto", tmp_path / "auto"), ("auto, full", "auto", full), ("offline", "offline", tmp_path / "offline"),
    ):  # fmt: skip
        knowledge = {"source": source, **sections.get("knowledge", {})}
        recipe = lesson(store, kind=kind, **{**sections, "knowledge": knowledge})
        found[name] = weights(run(recipe, tmp_path / f"run-{next(NUMBERS)}"))
    return found


@pytest.mark.parametrize("form", ["fp32", "top", *(pytest.param(each, marks=SLOW) for each in ("fp16", "top of all"))])
def test_every_source_and_every_store_makes_the_same_student(tmp_path: Path, form: str) -> None:
    """Inline, stored, offline, auto, from an empty, a full or somebody else's half-filled store: the same bits."""
    found = ends(tmp_path, "mlp", {"knowledge": FORMS[form]})
    assert len(set(found.values())) == 1, found


@pytest.mark.slow
@pytest.mark.parametrize(("form", "features"), [("fp32", "fp32"), ("fp16", "int8"), ("top", "fp16")])
def test_every_source_with_activations_and_mixed_views(tmp_path: Path, form: str, features: str) -> None:
    """The same for convolutions, mixed views seen again, two students and activations in every form."""
    sections = {**MIXED, **FEATURES, "control": {"seeds": 2}, "knowledge": {**FORMS[form], "features": features}}
    found = ends(tmp_path, "conv", sections)
    assert len(set(found.values())) == 1, found


def test_a_lossy_form_is_a_decision_of_the_recipe(tmp_path: Path) -> None:
    """Another encoding is another student: what is kept of an answer is what the student is told, stored or not."""
    found = {
        weights(run(lesson(tmp_path / "store", knowledge=each | {"source": "stored"}), tmp_path / name))
        for name, each in FORMS.items()
    }
    assert len(found) == len(FORMS)


@pytest.mark.parametrize(
    "engine",
    [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 1000}, {"precision": "bf16"}, {"channels_last": True}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["mlp", pytest.param("conv", marks=pytest.mark.slow)])
def test_groups_of_any_size(tmp_path: Path, kind: str, engine: dict[str, Any]) -> None:
    """However many views an eager teacher answers at once, answers read and asked are the same bits."""
    if kind == "conv" and engine == {"batch_size": 1}:
        engine = {"batch_size": 3}
    sections = {"engine": engine, **({} if kind == "mlp" else FEATURES)}
    found = {weights(run(lesson(tmp_path / "none", "inline", kind, **sections), tmp_path / "inline"))}
    found.add(weights(run(lesson(tmp_path / "store", "stored", kind, **sections), tmp_path / "stored")))
    damage(only_store(tmp_path / "store"), 0, list(range(0, 1797, 5)), "bit")
    damage(only_store(tmp_path / "store"), 1, [700], "cut")
    found.add(weights(run(lesson(tmp_path / "store", "stored", kind, **sections), tmp_path / "again")))
    assert len(found) == 1


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A full store, and the digest of the run that filled it."""
    root = tmp_path_factory.mktemp("any-rows")
    return root, weights(run(lesson(root / "full", **MIXED), root / "first"))


WOUNDS = st.tuples(
    st.integers(0, 1),
    st.lists(st.integers(0, 1796), min_size=1, max_size=60),
    st.sampled_from(["bit", "zeros", "cut", "gone"]),
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WOUNDS, max_size=4), st.sampled_from(["stored", "auto", "offline"]))
def test_whatever_is_left(desk: tuple[Path, str], wounds: list[tuple[int, list[int], str]], source: str) -> None:
    """Whichever rows are gone or damaged, the student is the same, and the store is as full again afterwards."""
    root, undisturbed = desk
    store = root / str(next(NUMBERS))
    shutil.copytree(root / "full", store)
    folder = only_store(store)
    before = answered(folder)
    for view, samples, how in wounds:
        damage(folder, view, samples, how)
    result = run(lesson(store, source, **MIXED), root / f"run-{store.name}")
    assert weights(result) == undisturbed
    assert answered(folder) >= before


def test_damaged_rows_are_asked_again_and_told(tmp_path: Path) -> None:
    """The result counts the damaged rows that were met, and exactly they were asked."""
    first = run(lesson(tmp_path / "store"), tmp_path / "first")
    folder = only_store(tmp_path / "store")
    seen = {sample for sample, view in asked_keys(tmp_path, "keys") if view == 0}
    hurt = sorted(seen)[10:40]
    damage(folder, 0, hurt, "bit")
    with Asked() as asked:
        result = run(lesson(tmp_path / "store"), tmp_path / "second")
    assert weights(result) == weights(first)
    assert result["store"]["rows_damaged"] == 30 == result["store"]["misses"]
    assert sorted(asked.keys) == [(sample, 0) for sample in hurt]
    assert run(lesson(tmp_path / "store"), tmp_path / "third")["store"]["rows_damaged"] == 0


def asked_keys(tmp_path: Path, name: str) -> list[tuple[int, int]]:
    """The keys that a student of the tiny recipe asks about."""
    with Asked() as asked:
        run(lesson(tmp_path / name, "inline"), tmp_path / f"{name}-run")
    return asked.keys


def test_damaged_rows_met_while_filling_are_told(tmp_path: Path) -> None:
    """Offline, damaged rows are found before any student reads them; the result counts them as well."""
    run(lesson(tmp_path / "store", "offline"), tmp_path / "first")
    damage(only_store(tmp_path / "store"), 1, list(range(0, 1797, 10)), "bit")
    result = run(lesson(tmp_path / "store", "offline"), tmp_path / "second")
    assert result["store"]["misses"] > 0
    assert result["store"]["rows_damaged"] == result["store"]["misses"]


OTHERS: dict[str, dict[str, Any]] = {
    "student": {
        "student": {"model": {"arch": "mlp", "options": {"hidden": [5, 4]}}, "train": {"batch_size": 100, "epochs": 3}}
    },
    "fewer epochs": {"train": {"epochs": 1, "warmup_epochs": 0}},
    "batch": {"train": {"batch_size": 37, "accumulate": 1}},
    "optimiser": {"train": {"optimizer": {"kind": "adamw"}}},
    "weights and temperature": {"objective": {"cross_entropy": 0.7, "kd": {"weight": 0.2, "temperature": 1.5}}},
    "arms": {"control": {"seeds": 2}},
    "step engine": {"train": {"engine": {"precision": "bf16"}}},
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores in which everything is answered that the tiny recipe may ask; only to be copied."""
    root = tmp_path_factory.mktemp("full")
    run(lesson(root / "store", "offline", train={"epochs": 6}), root / "filling")
    return root / "store"


@pytest.fixture
def filled(tmp_path: Path, full: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(full, tmp_path / "store"))


@pytest.mark.parametrize("other", OTHERS)
def test_other_students_read_it(tmp_path: Path, filled: Path, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another student, order, length or objective reads all answers, and the teacher is never even built."""
    monkeypatch.setattr("stillhouse.runner.teaching.Teacher", None)
    result = run(lesson(filled, **OTHERS[other]), tmp_path / "r")
    assert result["store"]["misses"] == 0 < result["store"]["hits"]
    assert result["store"]["bytes_written"] == 0
    assert result["store"]["folder"] == str(only_store(filled))


STRANGERS: dict[str, tuple[dict[str, Any], str]] = {
    "augmentation": ({"data": {**DIGITS, "augment": {"pad_px": 2}}}, "views.augment.pad_px: 1 there, 2 here"),
    "mixing": ({"data": {**MIXED["data"], "views": None}}, "views."),
    "seed": ({"seed": 1}, "views.seed: 0 there, 1 here"),
    "encoding": ({"knowledge": {"source": "stored", **FORMS["fp16"]}}, "encoding.logits: fp32 there, fp16 here"),
    "engine": ({"engine": {"precision": "bf16"}}, "engine.precision: fp32 there, bf16 here"),
    "group": ({"engine": {"batch_size": 64}}, "engine.batch_size: 128 there, 64 here"),
    "question": (FEATURES, "question.features: [] there, ['stage1'] here"),
    "teacher": ({"kind": "conv"}, "teacher.arch: mlp there, resnet here"),
}  # fmt: skip


@pytest.mark.parametrize("stranger", STRANGERS)
def test_other_questions_never_read_it(tmp_path: Path, filled: Path, stranger: str) -> None:
    """Other views, another teacher, engine, encoding or question read nothing, and it is told what differs."""
    sections, difference = STRANGERS[stranger]
    events: list[Event] = []
    result = run(lesson(filled, **sections), tmp_path / "run", [events.append])
    assert result["store"]["hits"] == 0 and result["store"]["misses"] == SEEN
    (opened,) = told(events, StoreOpened)
    assert "not read: " in opened.note and difference in opened.note
    inline = lesson(filled, **{**sections, "knowledge": {**sections.get("knowledge", {}), "source": "inline"}})
    assert weights(run(inline, tmp_path / "inline")) == weights(result)


def test_a_teacher_that_was_trained_longer_is_another(tmp_path: Path) -> None:
    """A teacher of the same form with other weights reads nothing, though everything else is the same."""
    teacher = {"model": {"arch": "mlp", "options": {"hidden": [32]}}, "train": {"epochs": 1, "warmup_epochs": 0}}
    run(lesson(tmp_path / "store", teacher=teacher), tmp_path / "first")
    longer = {**teacher, "train": {"epochs": 2, "warmup_epochs": 0}}
    events: list[Event] = []
    result = run(lesson(tmp_path / "store", teacher=longer), tmp_path / "second", [events.append])
    assert result["store"]["hits"] == 0
    assert told(events, StoreOpened)[0].note.partition(": ")[2].count("teacher.weights: ") == 1


@pytest.mark.parametrize("source", ["stored", "auto"])
@pytest.mark.parametrize("seeds", [0, 2])
def test_what_the_result_says_of_the_store(tmp_path: Path, source: str, seeds: int) -> None:
    """Hits and misses add up to the views that all students saw, bytes are those on disk, shares lie in [0, 1]."""
    for number in range(2):
        result = run(lesson(tmp_path / "store", source, control={"seeds": seeds}), tmp_path / str(number))
        store = result["store"]
        assert store["hits"] + store["misses"] == SEEN * max(seeds, 1)
        assert store["folder"] == str(only_store(tmp_path / "store")) and store["row_bytes"] == 48
        assert store["rows_damaged"] == store["rows_without_room"] == 0
        assert 0 < store["bytes_on_disk"] <= 2 * 90_112 + 8_192
        assert 0.0 <= result["throughput"]["starved_share"] <= 1.0
        idle = result["throughput"]["teacher_idle_share"]
        assert idle is None if store["misses"] == 0 else 0.0 <= idle <= 1.0
        assert (store["misses"] == 0) or number == 0
    assert run(lesson(tmp_path / "store", "inline"), tmp_path / "inline")["store"] is None


def test_all_bytes_written_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the disk, the result's bytes_written are those of every row that was asked and written."""
    write = LabelStore.write

    def slowly(self: LabelStore, *rows: Any) -> int:
        time.sleep(0.03)
        return write(self, *rows)

    monkeypatch.setattr(LabelStore, "write", slowly)
    store = run(lesson(tmp_path / "store"), tmp_path / "run")["store"]
    assert store["bytes_written"] == store["misses"] * store["row_bytes"]


def limited(labels: Path) -> Recipe:
    """The tiny recipe with room for one view of 1,797 rows of 48 bytes."""
    return lesson(labels, store={"path": str(labels), "bytes_max": 100_000})


def test_beyond_the_limit_is_asked_each_time(tmp_path: Path) -> None:
    """One view of two fits: it warns once, reads that one, asks the other each time, and ends in the same bits."""
    plain = run(lesson(tmp_path / "none", "inline"), tmp_path / "inline")
    events: list[Event] = []
    first = run(limited(tmp_path / "store"), tmp_path / "first", [events.append])
    again = run(limited(tmp_path / "store"), tmp_path / "again")
    assert weights(first) == weights(again) == weights(plain)
    (warned,) = told(events, Warned)
    assert "room for 1" in warned.message and "data.views" in warned.message and "bytes_max" in warned.message
    assert first["store"]["rows_without_room"] == SEEN // 2
    assert (again["store"]["hits"], again["store"]["misses"]) == (SEEN // 2, SEEN // 2)
    assert again["store"]["bytes_on_disk"] <= 100_000


def test_room_that_another_store_took(tmp_path: Path) -> None:
    """Stores of other questions count: with no room at all the run asks everything and ends in the same bits."""
    run(lesson(tmp_path / "store", seed=1), tmp_path / "other")
    plain = run(lesson(tmp_path / "none", "inline"), tmp_path / "inline")
    result = run(limited(tmp_path / "store"), tmp_path / "run")
    assert weights(result) == weights(plain)
    assert result["store"]["hits"] == 0 and result["store"]["rows_without_room"] == SEEN
    assert any("room for 0" in warning for warning in result["warnings"])


def test_a_disk_that_refuses_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses labels in the middle is warned of once; the run ends in the same bits."""
    plain = run(lesson(tmp_path / "none", "inline"), tmp_path / "inline")
    calls = itertools.count()
    pwrite = os.pwrite

    def full(*arguments: Any) -> int:
        if next(calls) >= 100:
            raise OSError(28, "No space left on device")
        written: int = pwrite(*arguments)
        return written

    monkeypatch.setattr("stillhouse.store.view_files.os.pwrite", full)
    result = run(lesson(tmp_path / "store"), tmp_path / "run")
    assert weights(result) == weights(plain)
    assert [each.count("No space left on device") for each in result["warnings"]] == [1]


@pytest.mark.parametrize("source", ["auto", "stored", "offline"])
def test_a_folder_that_can_not_be_had(tmp_path: Path, source: str) -> None:
    """Where no label store can be made it is said before anything is trained, with the keys to mend it."""
    (tmp_path / "file").write_text("in the way")
    trained = {"model": {"arch": "mlp"}, "train": {"epochs": 1, "warmup_epochs": 0}}
    with pytest.raises(StillhouseError, match=r"store\.path: .*knowledge\.source=inline"):
        run(lesson(tmp_path / "file" / "labels", source, teacher=trained), tmp_path / "run")
    assert not (tmp_path / "run").exists()

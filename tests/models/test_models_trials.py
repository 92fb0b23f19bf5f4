"""What trials share: what a try may cost, interleaved timing, labels, and a memory that is never an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stillhouse.foundation.files import cache_folder
from stillhouse.models import trials
from stillhouse.models.trials import Ledger, Tried, compile_guess_s, interleaved_s, label_of, pays, recall, remember
from stillhouse.recipe.engines import AUTO, StepEngineSection, TeacherEngineSection

CPU = torch.device("cpu")
ROW = Tried("bf16", {"precision": "bf16", "channels_last": False, "compile": False}, samples_per_s=5.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("cost_s", "rest_s", "hoped", "worth"),
    [
        (10, 60, 1.5, True),  # may win 20 s
        (10, 59, 1.5, False),
        (10, 40, 2.0, True),
        (0.1, 0.5, 1.5, False),  # the digits demo
        (10, 1e6, 1.0, False),  # nothing to hope for
        (10, 1e6, 0.5, False),
        (0, 0, 2.0, True),
    ],
)
def test_a_try_must_promise_twice_its_cost(cost_s: float, rest_s: float, hoped: float, worth: bool) -> None:
    """A trial is worth it where half of what it may win is more than what it costs, and not otherwise."""
    assert pays(cost_s, rest_s, hoped) is worth


@given(st.floats(0, 1e6), st.floats(0, 1e9), st.floats(1, 10), st.floats(1, 10))
def test_more_work_never_forbids_a_try(cost_s: float, rest_s: float, hoped: float, factor: float) -> None:
    """What is worth trying stays so with more work left, a larger hope or a lower cost."""
    if pays(cost_s, rest_s, hoped):
        assert pays(cost_s, rest_s * factor, hoped)
        assert pays(cost_s, rest_s, hoped * factor)
        assert pays(cost_s / factor, rest_s, hoped)


def test_larger_networks_are_expected_to_compile_longer() -> None:
    """The guess grows with the layers that hold weights."""
    small = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert compile_guess_s(small) < compile_guess_s(nn.Sequential(*[nn.Linear(2, 2) for _ in range(50)]))


def test_timing_is_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls take turns round by round, and a few slow rounds don't count."""
    order: list[str] = []
    readings = iter([1.0, 7.0, 9.0, 6.0, 2.0, 70.0, 50.0, 5.0, 3.0, 80.0])

    def seconds(call: object, device: torch.device) -> float:
        assert callable(call)
        call()
        return next(readings)

    monkeypatch.setattr(trials, "seconds_of", seconds)
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    found = interleaved_s(calls, CPU, rounds=5, check=lambda: order.append("check"))
    assert order == ["check", "a", "b"] * 5
    assert found == {"a": 2.0, "b": 6.0}


def test_labels_say_what_differs() -> None:
    """A label names precision, layout, compiler, runtime and batch size."""
    teacher = TeacherEngineSection(precision="bf16", channels_last=True, compile=True, batch_size=64)
    assert label_of(teacher) == "bf16 channels-last compiled, 64 at once"
    assert label_of(TeacherEngineSection(runtime="onnx")) == "fp32 ONNX Runtime, 128 at once"
    assert label_of(StepEngineSection()) == "fp32"


def test_ledger_marks_the_chosen_row_and_remembers_it() -> None:
    """The row taken is marked in the table, told again and found next time; without one, what is fixed stays."""
    wanted, heard = StepEngineSection(precision=AUTO, channels_last=True), list[Tried]()
    ledger = Ledger(wanted, StepEngineSection(), "key", heard.append, lambda: None)
    engine = StepEngineSection(precision="bf16", channels_last=True)
    assert ledger.fits(engine) and not ledger.fits(StepEngineSection(precision="bf16"))
    row = trials.row_of(engine)
    ledger.note(row)
    chosen = ledger.close(engine, row)
    assert [each.chosen for each in chosen.table] == [True] and heard == [row, chosen.table[0]]
    assert ledger.recalled() == (engine, None)
    assert ledger.nothing_better().engine == StepEngineSection(channels_last=True)


def test_memory_keeps_the_newest(cache: Path) -> None:
    """Two hundred entries are kept; one remembered again counts as new."""
    remember("key 0", ROW)
    (entry,) = json.loads((cache / "engines.json").read_text()).values()
    (cache / "engines.json").write_text(json.dumps({f"key {number}": entry for number in range(200)}))
    remember("key 0", ROW)
    remember("one more", ROW)
    assert len(json.loads((cache / "engines.json").read_text())) == 200
    assert recall("key 0") and recall("one more") and not recall("key 1")


def test_memory_of_a_missing_or_unwritable_folder_is_empty(cache: Path) -> None:
    """A cache that is not there or can't be written is empty, without an error."""
    assert recall("key") is None
    cache.write_text("a file in the way")
    remember("key", ROW)
    assert recall("key") is None


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """STILLHOUSE_CACHE, then XDG_CACHE_HOME, then ~/.cache says where the cache is."""
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("STILLHOUSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "stillhouse"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "stillhouse"

"""The small rest of the foundation: stopwatch, hints, the user's functions."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stillhouse.foundation.clock import Stopwatch
from stillhouse.foundation.errors import (
    CorruptError,
    DataError,
    DivergedError,
    Interrupted,
    ModelError,
    RecipeError,
    RunDirError,
    StorageError,
    nearest,
)
from stillhouse.foundation.functions import load_function


def test_every_second_is_charged_once() -> None:
    """The laps of a stopwatch add up to the time that passed."""
    started = time.perf_counter()
    watch = Stopwatch()
    for name in ("data", "step", "data"):
        time.sleep(0.002)
        watch.lap(name)
    taken = watch.take()
    assert set(taken) == {"data", "step"}
    assert 0.006 <= sum(taken.values()) <= time.perf_counter() - started
    assert watch.take() == {}


def test_exit_codes_of_errors() -> None:
    """Exit codes: 2 what a person can mend in the input, 1 what stopped the run, 128 + signal."""
    assert {kind("x").exit_code for kind in (RecipeError, DataError, ModelError, RunDirError)} == {2}
    assert {kind("x").exit_code for kind in (StorageError, DivergedError, CorruptError)} == {1}
    assert Interrupted("x", 2).exit_code == 130


def test_hint_for_a_misspelt_name() -> None:
    """A misspelt name is answered with the nearest known one, a wild one with the list."""
    assert nearest("epocs", ["epochs", "seed"]) == "did you mean 'epochs'?"
    assert nearest("zzz", ["epochs", "seed"]) == "known here: epochs, seed"
    assert nearest("zzz", []) == "nothing is known here"


def test_a_function_is_loaded_from_its_file(tmp_path: Path) -> None:
    """A user's function comes from its file as it is now, under a name that shadows nothing."""
    file = tmp_path / "json.py"
    file.write_text("def f(): return 1\n")
    assert load_function(f"{file}:f")() == 1
    file.write_text("def f(): return 22\n")
    assert load_function(f"{file}:f")() == 22


@pytest.mark.parametrize(
    ("code", "story"),
    [
        ("raise KeyError('gone')\ndef f(): ...", "raised KeyError: 'gone'"),
        ("import sys\nsys.exit(0)\ndef f(): ...", "raised SystemExit"),
        ("def f(): ...\ndel f", "has no 'f'"),
        ("def f(: ...", "raised SyntaxError"),
    ],
)
def test_a_file_that_does_not_load_is_told(code: str, story: str, tmp_path: Path) -> None:
    """A user's file that raises, exits or lacks the function is a recipe error with its cause."""
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(RecipeError, match=story):
        load_function(f"{tmp_path / 'mine.py'}:f")

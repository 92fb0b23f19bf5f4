"""What ``auto`` settled is written down once, and obeyed ever after."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stillhouse
from stillhouse.foundation.errors import Interrupted
from stillhouse.foundation.events import Event, PhaseStarted
from stillhouse.recipe.load import load
from stillhouse.runner.run import resume, run

from .automatic import MASS, Crash, automatic, settled, written
from .conftest import STEP
from .lessons import lesson, weights

pytestmark = pytest.mark.usefixtures("not_drawn")


def test_what_auto_means_is_written_down(tmp_path: Path, trials: list[str]) -> None:
    """Engines and the number of logits stand settled in recipe.yaml and run.json alike; each was tried once."""
    result = run(automatic(tmp_path / "store"), tmp_path / "run")
    assert trials == ["step", "answers", "step"]
    there, manifest = written(tmp_path / "run")
    assert there == manifest
    settled(there)
    assert result["engines"] == {"teacher": there["teacher"]["engine"], "student": there["student"]["train"]["engine"]}


def test_a_teacher_that_is_not_asked_has_no_engine(tmp_path: Path, trials: list[str]) -> None:
    """Where the objective asks nothing the result names no engine of answers, whatever the recipe left open."""
    objective = {"cross_entropy": 1.0, "kd": None}
    result = run(automatic(tmp_path / "store", objective=objective, knowledge={}), tmp_path / "run")
    assert result["engines"] == {"teacher": None, "student": STEP.model_dump(mode="json")}


@pytest.mark.parametrize("place", range(8))
def test_killed_between_the_two_writes(
    tmp_path: Path, trials: list[str], place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or between the two files of any choice, a run resumes, and ends with both saying the same."""
    from stillhouse.runner import rundir

    whole = run(automatic(tmp_path / "whole"), tmp_path / "undisturbed")
    trials.clear()
    writes, write_json, write_atomic = 0, rundir.write_json, rundir.write_atomic
    resettling = False

    def dying(write: Callable[..., None]) -> Callable[..., None]:
        def deadly(path: Path, content: Any) -> None:
            nonlocal writes
            if resettling:
                if writes == place:
                    raise Crash
                writes += 1
            write(path, content)

        return deadly

    resettle = rundir.RunDir.resettle

    def watched(self: Any, recipe: Any) -> None:
        nonlocal resettling
        resettling = True
        resettle(self, recipe)
        resettling = False

    with monkeypatch.context() as patched:
        patched.setattr(rundir, "write_json", dying(write_json))
        patched.setattr(rundir, "write_atomic", dying(write_atomic))
        patched.setattr(rundir.RunDir, "resettle", watched)
        with pytest.raises(Crash):
            run(automatic(tmp_path / "store"), tmp_path / "run")
    assert weights(resume(tmp_path / "run")) == weights(whole)
    assert len(trials) <= 4
    there, manifest = written(tmp_path / "run")
    settled(manifest)
    assert there == manifest


@pytest.mark.parametrize("phase", ["student", "control-0"])
def test_resume_holds_no_trial(tmp_path: Path, trials: list[str], phase: str, forbidden: Callable[[], None]) -> None:
    """A run that crashed after its engines were chosen goes on with them, and tries nothing."""

    def listener(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == phase:
            raise Crash

    whole = run(automatic(tmp_path / "whole", control={"seeds": 1}), tmp_path / "undisturbed")
    with pytest.raises(Crash):
        run(automatic(tmp_path / "store", control={"seeds": 1}), tmp_path / "run", [listener])
    forbidden()
    assert weights(resume(tmp_path / "run")) == weights(whole)


@pytest.mark.parametrize("source", ["inline", "stored"])
def test_a_finished_run_s_recipe_is_a_recipe(
    tmp_path: Path, trials: list[str], source: str, forbidden: Callable[[], None]
) -> None:
    """The recipe.yaml of a run, given to a new one, makes the same student without a trial, whatever is stored."""
    first = run(automatic(tmp_path / "store", source), tmp_path / "run")
    forbidden()
    again = run(load(tmp_path / "run" / "recipe.yaml"), tmp_path / "again")
    empty = load(tmp_path / "run" / "recipe.yaml", [f"store.path={tmp_path / 'empty'}"])
    assert weights(run(empty, tmp_path / "emptied")) == weights(again) == weights(first)


def test_mass_settles_k(tmp_path: Path) -> None:
    """More probability to keep never settles fewer logits; the run is that of the recipe that says k itself."""
    found = []
    for mass in (0.3, 0.9, 0.999):
        knowledge = {"source": "stored", "logits": {"kind": "top", "mass": mass}}
        result = run(lesson(tmp_path / "store", knowledge=knowledge), tmp_path / str(mass))
        k = load(tmp_path / str(mass) / "recipe.yaml").knowledge.logits.k  # type: ignore[union-attr]
        found.append(k)
        knowledge["logits"] = {"kind": "top", "k": k}
        told_k = run(lesson(tmp_path / "store", knowledge=knowledge), tmp_path / f"{mass}-k")
        assert weights(told_k) == weights(result) and told_k["store"]["misses"] == 0
    assert found == sorted(found) and 1 <= found[0] < found[-1] <= 10


def test_a_real_trial_leaves_no_trace(tmp_path: Path) -> None:
    """Trials draw no random number and change no weight: the student is that of the recipe that fixes the engine."""
    result = run(automatic(tmp_path / "store", knowledge={"source": "stored"}), tmp_path / "run")
    fixed = load(tmp_path / "run" / "recipe.yaml", [f"store.path={tmp_path / 'other'}"])
    assert weights(run(fixed, tmp_path / "fixed")) == weights(result)


@pytest.mark.parametrize("role", ["teacher", "step"])
def test_ctrl_c_while_engines_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    """A signal ends the run at the engine that was being tried; a resume tries again, to a run's end."""
    from stillhouse.students.trial import _Trial as Steps
    from stillhouse.teachers.trial import _Trial as Answers

    trial, opened = {"teacher": Answers, "step": Steps}[role], 0
    open_engine = trial.open

    def interrupted(self: Any, engine: Any) -> Any:
        nonlocal opened
        opened += 1
        os.kill(os.getpid(), signal.SIGINT)
        return open_engine(self, engine)

    sections: dict[str, Any] = {"engine": "auto"} if role == "teacher" else {"train": {"engine": "auto"}}
    with monkeypatch.context() as patched:
        patched.setattr(trial, "open", interrupted)
        with pytest.raises(Interrupted, match="stopped while engines were tried") as caught:
            run(lesson(tmp_path / "store", **sections), tmp_path / "run")
    assert caught.value.exit_code == 130 and opened == 1
    assert not (tmp_path / "run" / "result.json").exists()
    assert weights(resume(tmp_path / "run"))
    there, manifest = written(tmp_path / "run")
    assert there == manifest and "auto" not in there["teacher"]["engine"].values()


CODE = """from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.{activation}(), nn.Linear(32, 10))
"""


def test_other_code_is_another_teacher(tmp_path: Path) -> None:
    """A teacher's own code that was changed, with the same weights, is another teacher: its old answers aren't read."""
    code, file = tmp_path / "teacher.py", tmp_path / "teacher.pt"
    code.write_text(CODE.format(activation="ReLU"))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    torch.save(module.state_dict(), file)
    model = {"arch": f"{code}:make", "weights": str(file)}
    run(lesson(tmp_path / "store", teacher={"model": model}), tmp_path / "first")
    code.write_text(CODE.format(activation="Tanh"))
    inline = run(lesson(tmp_path / "store", "inline", teacher={"model": model}), tmp_path / "inline")
    stored = run(lesson(tmp_path / "store", teacher={"model": model}), tmp_path / "stored")
    assert weights(stored) == weights(inline)


def test_another_live_module_is_another_teacher(tmp_path: Path) -> None:
    """The same of a module handed over from Python."""
    students = []
    for name, activation in (("first", nn.ReLU()), ("stored", nn.Tanh()), ("inline", nn.Tanh())):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), activation, nn.Linear(32, 10))
        done = distilled(tmp_path, name, module, knowledge={"source": "inline" if name == "inline" else "stored"})
        students.append(weights(done.result))
    assert students[1] == students[2] != students[0]


class Digits:
    """A data set."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.random.default_rng(index).integers(0, 256, (1, 8, 8)).astype(np.uint8), index % 10


def distilled(tmp_path: Path, name: str, module: nn.Module, **sections: Any) -> Any:
    torch.manual_seed(1)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    settings = {
        "train": {"epochs": 2, "batch_size": 16}, "store": {"path": str(tmp_path / "labels")}, "control": {"seeds": 0},
        "compute": {"device": "cpu", "threads": 1},
    }  # fmt: skip
    return stillhouse.distill(module, student, Digits(), out=tmp_path / name, **{**settings, **sections})


@pytest.mark.parametrize("what", ["relative folder", "engine", "mass"])
def test_distill_goes_on_with_what_was_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[str], what: str
) -> None:
    """distill(resume=True) takes up a run whose recipe says by now what 'auto', or a relative folder, means."""
    monkeypatch.chdir(tmp_path)
    sections: dict[str, Any] = {
        "relative folder": {"store": {"path": "labels"}},
        "engine": {"train": {"epochs": 2, "batch_size": 16, "engine": "auto"}},
        "mass": {"knowledge": {"logits": MASS}},
    }[what]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    whole = distilled(tmp_path, "run", module, **sections)
    (tmp_path / "run" / "result.json").unlink()
    again = distilled(tmp_path, "run", module, resume=True, **sections)
    assert again.result["digests"]["student_weights"] == whole.result["digests"]["student_weights"]

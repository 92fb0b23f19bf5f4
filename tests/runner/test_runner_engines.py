"""What ``auto`` settled is written down once, obeyed ever after, and taken from a store that is there already."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import stillhouse
from stillhouse.foundation.errors import Interrupted, ModelError
from stillhouse.foundation.events import EngineTried, Event, PhaseStarted, SourceMeasured
from stillhouse.models.trials import Chosen
from stillhouse.recipe.engines import StepEngineSection, TeacherEngineSection
from stillhouse.recipe.load import load
from stillhouse.runner.run import resume, run
from stillhouse.store.folder import views_in
from stillhouse.store.label_store import open_folder, open_store
from stillhouse.store.manifest import Identity

from .conftest import TRAIN
from .lessons import SEEN, STUDENTS, Asked, damage, lesson, only_store, told, weights

MASS = {"kind": "top", "mass": 0.9}
FOUND = TeacherEngineSection(precision="bf16", batch_size=64)
STEP = StepEngineSection(precision="bf16")


class Crash(BaseException):
    """The end of a process, as far as one process can play it."""


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Drawing the report takes longer than the run; what trials remember stays in the test."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials that were held; instead of a stopwatch they choose bf16, which is not what nothing better is."""
    held: list[str] = []

    def teachers(*arguments: Any, check: Any) -> Chosen[TeacherEngineSection]:
        held.append("answers")
        return Chosen(FOUND)

    def steps(
        make: Any, objective: Any, batches: Any, settings: Any, *rest: Any, check: Any
    ) -> Chosen[StepEngineSection]:
        held.append("step")
        assert all(len(knowledge.sample_ids) == len(batch) for batch, knowledge in batches)
        return Chosen(STEP)

    monkeypatch.setattr("stillhouse.runner.settle.choose_teacher_engine", teachers)
    monkeypatch.setattr("stillhouse.runner.settle.choose_step_engine", steps)
    return held


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forbids every trial from now on."""

    def refuse(*arguments: Any, **more: Any) -> None:
        raise AssertionError("a trial was held")

    def forbid() -> None:
        for name in ("choose_teacher_engine", "choose_step_engine", "k_for_mass"):
            monkeypatch.setattr(f"stillhouse.runner.settle.{name}", refuse)

    return forbid


def automatic(labels: Path, source: str = "stored", **sections: Any) -> Any:
    """Everything ``auto`` that can be: engines of answers and of both steps, and the number of logits."""
    teachers = {
        "model": {"arch": "mlp", "options": {"hidden": [32]}}, "engine": "auto", "train": {**TRAIN, "engine": "auto"}
    }  # fmt: skip
    student = {"model": STUDENTS["mlp"], "train": {**TRAIN, "engine": "auto"}}
    knowledge = {"source": source, "logits": MASS}
    return lesson(labels, **({"teacher": teachers, "student": student, "knowledge": knowledge} | sections))


def written(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe as recipe.yaml and as run.json have it."""
    return yaml.safe_load((folder / "recipe.yaml").read_text()), json.loads((folder / "run.json").read_text())["recipe"]


def settled(recipe: dict[str, Any]) -> None:
    """Assert that the trials' choices stand in a recipe."""
    assert recipe["teacher"]["engine"] == FOUND.model_dump(mode="json")
    assert recipe["teacher"]["train"]["engine"] == STEP.model_dump(mode="json") == recipe["student"]["train"]["engine"]
    assert 1 <= recipe["knowledge"]["logits"]["k"] <= 10


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


def refilled(labels: Path, engine: TeacherEngineSection) -> None:
    """Turn the only store in a folder into one that another engine filled with the same rows."""
    folder = only_store(labels)
    with open_folder(folder) as source:
        manifest = source.manifest
        identity = Identity(**{**manifest.identity.parts, "engine": engine.model_dump(mode="json")})
        with open_store(labels, identity, manifest.fields, manifest.samples) as target:
            for view in views_in(folder):
                for rows in source.scan(range(source.samples), view):
                    ids = rows.sample_ids[rows.found]
                    target.write(ids, np.full(len(ids), view), rows.payload[rows.found])
    shutil.rmtree(folder)


class TestAStoreThatIsThere:
    """``teacher.engine: auto`` where a store differs in its engine only."""

    FP16 = TeacherEngineSection(precision="fp16", channels_last=True, batch_size=512)

    @pytest.fixture
    def filled(self, tmp_path: Path) -> str:
        """All answers of the plain engine are in ``store``; the digest of the student."""
        return weights(run(lesson(tmp_path / "store", "offline"), tmp_path / "filling"))

    def test_its_engine_is_taken(self, tmp_path: Path, filled: str, forbidden: Callable[[], None]) -> None:
        """The engine that filled a store is taken without a trial, and everything is read."""
        forbidden()
        events: list[Event] = []
        result = run(lesson(tmp_path / "store", engine="auto"), tmp_path / "run", [events.append])
        assert weights(result) == filled and result["store"]["misses"] == 0
        (taken,) = told(events, EngineTried)
        assert taken.chosen and "filled with all answers" in taken.engine
        assert written(tmp_path / "run")[0]["teacher"]["engine"] == TeacherEngineSection().model_dump(mode="json")

    @pytest.mark.parametrize(("divergence_max", "taken"), [(1e-3, True), (1e-15, False)])
    def test_it_is_as_near_as_the_recipe_wants(self, tmp_path: Path, divergence_max: float, taken: bool) -> None:
        """A store full of bf16 answers is read where that is near enough to fp32, and not where it isn't."""
        run(lesson(tmp_path / "store", "offline", engine={"precision": "bf16"}), tmp_path / "filling")
        recipe = lesson(tmp_path / "store", engine="auto")
        teacher = recipe.teacher.model_copy(update={"divergence_max": divergence_max})
        events: list[Event] = []
        run(recipe.model_copy(update={"teacher": teacher}), tmp_path / "run", [events.append])
        assert any("filled with all answers" in each.engine for each in told(events, EngineTried)) == taken
        assert (written(tmp_path / "run")[0]["teacher"]["engine"]["precision"] == "bf16") == taken

    @pytest.mark.parametrize("source", ["stored", "auto", "offline"])
    def test_an_engine_that_is_not_to_be_had_here(
        self, tmp_path: Path, filled: str, forbidden: Callable[[], None], source: str
    ) -> None:
        """A store that a GPU filled whole teaches on a CPU: nothing is tried, nothing asked."""
        refilled(tmp_path / "store", self.FP16)
        forbidden()
        with Asked() as asked:
            result = run(lesson(tmp_path / "store", source, engine="auto"), tmp_path / "run")
        assert weights(result) == filled and result["store"]["misses"] == 0 and asked.views == 0
        assert written(tmp_path / "run")[0]["teacher"]["engine"] == self.FP16.model_dump(mode="json")

    def test_crash_under_such_an_engine(self, tmp_path: Path, filled: str) -> None:
        """A run on such a store is resumed like any other, and its recipe.yaml runs again."""
        refilled(tmp_path / "store", self.FP16)

        def listener(event: Event) -> None:
            if isinstance(event, PhaseStarted) and event.phase == "student":
                raise Crash

        with pytest.raises(Crash):
            run(lesson(tmp_path / "store", engine="auto"), tmp_path / "run", [listener])
        assert weights(resume(tmp_path / "run")) == filled
        assert weights(run(load(tmp_path / "run" / "recipe.yaml"), tmp_path / "again")) == filled

    def test_reading_is_never_measured_against_what_can_not_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However slow the disk, ``source: auto`` does not wake a teacher that this machine can't run."""
        train = {"epochs": 6, "batch_size": 80}
        plain = weights(run(lesson(tmp_path / "store", "offline", train=train), tmp_path / "filling"))
        refilled(tmp_path / "store", self.FP16)
        now = [0.0]

        def clock() -> float:
            now[0] += 1.0
            return now[0]

        monkeypatch.setattr("stillhouse.knowledge.stored.time.perf_counter", clock)
        events: list[Event] = []
        recipe = lesson(tmp_path / "store", "auto", engine="auto", train=train)
        assert weights(run(recipe, tmp_path / "run", [events.append])) == plain
        assert not told(events, SourceMeasured)

    def test_one_row_is_missing(self, tmp_path: Path, filled: str, trials: list[str]) -> None:
        """Where such a store lacks a row, ``auto`` tries engines; a recipe that names its engine is told why not."""
        refilled(tmp_path / "store", self.FP16)
        with Asked() as asked:
            run(lesson(tmp_path / "none", "inline"), tmp_path / "keys")
        damage(only_store(tmp_path / "store"), 1, [next(sample for sample, view in asked.keys if view == 1)], "bit")
        engine = self.FP16.model_dump(mode="json")
        with pytest.raises(ModelError, match=r"teacher\.engine: fp16 .*not all is answered yet"):
            run(lesson(tmp_path / "store", engine=engine), tmp_path / "fixed")
        result = run(lesson(tmp_path / "store", engine="auto"), tmp_path / "run")
        assert trials == ["answers"] and result["store"]["misses"] == SEEN

    def test_what_the_recipe_fixes_is_kept(self, tmp_path: Path, filled: str, trials: list[str]) -> None:
        """A store whose engine is not what the recipe fixes is left; one of another teacher too."""
        engine = {**dict.fromkeys(TeacherEngineSection.model_fields, "auto"), "batch_size": 32}
        run(lesson(tmp_path / "store", engine=engine), tmp_path / "run")
        run(lesson(tmp_path / "store", kind="conv", engine="auto"), tmp_path / "other")
        assert trials == ["answers", "answers"]


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

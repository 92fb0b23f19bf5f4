"""A run left at any point, in this process: resumed, it ends in the same student."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.export import onnx
from stillhouse.foundation.energy import EnergyRead
from stillhouse.foundation.errors import DivergedError, Interrupted, RunDirError, StillhouseError
from stillhouse.foundation.events import CheckpointRefused, CheckpointWritten, Event, PhaseFinished, PhaseStarted
from stillhouse.foundation.files import read_json
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import resume, run

Tiny = Callable[..., Recipe]
DIGESTS = ("student_weights", "teacher_weights", "data", "samples", "views", "recipe")


class Crash(BaseException):
    """The end of a process, as far as one process can play it."""


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


def crash_at(kind: type[Event], phase: str, nth: int = 1) -> Callable[[Event], None]:
    """A listener that ends the process at the nth event of a kind in a phase."""
    seen = 0

    def listener(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, kind) and event.phase == phase  # type: ignore[union-attr]
        if seen == nth:
            raise Crash

    return listener


def digests(folder: Path) -> dict[str, str]:
    found = read_json(folder / "result.json")["digests"]
    return {name: found[name] for name in DIGESTS}


@pytest.mark.parametrize(
    ("kind", "phase", "nth"),
    [
        (PhaseStarted, "teacher", 1), (CheckpointWritten, "teacher", 4), (PhaseFinished, "teacher", 1),
        (CheckpointWritten, "student", 1), (CheckpointWritten, "student", 6), (PhaseFinished, "student", 1),
        (CheckpointWritten, "control-0", 3), (PhaseFinished, "control-0", 1),
    ],
)  # fmt: skip
def test_crash_anywhere(tmp_path: Path, tiny: Tiny, finished: Path, kind: type[Event], phase: str, nth: int) -> None:
    """A crash in any phase, at its start, in its middle or at its end, changes no digest."""
    with pytest.raises(Crash):
        run(tiny(), tmp_path / "run", [crash_at(kind, phase, nth)])
    resume(tmp_path / "run")
    assert digests(tmp_path / "run") == digests(finished)
    assert not list((tmp_path / "run").rglob("*.ckpt"))


@pytest.mark.parametrize(
    "lost",
    [
        ["report.html"],
        ["report.html", "result.json"],
        ["report.html", "result.json", "student.json"],
        ["report.html", "result.json", "student.json", "student.safetensors"],
        ["report.html", "result.json", "student.json", "student.safetensors", "weights/control-0.safetensors"],
        ["result.json", "events.jsonl"],
        ["result.json", "run.json"],
    ],
)
def test_end_of_a_run_can_be_repeated(tmp_path: Path, tiny: Tiny, finished: Path, lost: list[str]) -> None:
    """Ended between any two of the files that a run leaves, it is completed to the same digests."""
    folder = tmp_path / "run"
    run(tiny(), folder)
    for name in lost:
        (folder / name).unlink()
    resume(folder)
    assert digests(folder) == digests(finished)
    assert (folder / "report.html").exists() and (folder / "student.safetensors").exists()


def test_weights_written_but_nothing_told(tmp_path: Path, tiny: Tiny, finished: Path) -> None:
    """Ended after a phase's weights were written and before anything else, the run goes on behind the phase."""
    folder = tmp_path / "run"
    with pytest.raises(Crash):
        run(tiny(), folder, [crash_at(PhaseFinished, "teacher")])
    assert list((folder / "checkpoints" / "teacher").glob("*.ckpt"))
    told: list[Event] = []
    resume(folder, [told.append])
    assert [each.phase for each in told if isinstance(each, PhaseStarted)] == ["student", "control-0"]
    assert digests(folder) == digests(finished)


def test_teacher_that_trained_channels_last_answers_alike_after_a_resume(tmp_path: Path, tiny: Tiny) -> None:
    """A teacher read back from disk answers as the one fresh from training, whatever its memory format was."""
    sections: dict[str, Any] = {}
    for role, width in (("teacher", 6), ("student", 3)):
        sections[role] = tiny().model_dump(mode="json")[role]
        sections[role]["model"] = {"arch": "resnet", "options": {"width": width, "blocks": [1, 1]}}
        sections[role]["train"]["engine"] = {"channels_last": True}
    recipe = tiny(**sections, control={"seeds": 0}, checkpoint={"every_s": 60})
    whole = run(recipe, tmp_path / "whole")
    with pytest.raises(Crash):
        run(recipe, tmp_path / "run", [crash_at(PhaseFinished, "teacher")])
    assert resume(tmp_path / "run")["digests"] == whole["digests"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_politely(tmp_path: Path, tiny: Tiny, finished: Path, number: signal.Signals) -> None:
    """A signal ends the run after its step with a checkpoint that was not due, and the handlers are put back."""
    folder, before = tmp_path / "run", signal.getsignal(number)
    told: list[Event] = []

    def listener(event: Event) -> None:
        told.append(event)
        if isinstance(event, PhaseStarted) and event.phase == "student":
            os.kill(os.getpid(), number)

    recipe = tiny()
    with pytest.raises(Interrupted, match="stopped at step 1 of 6 of student") as caught:
        run(recipe, folder, [listener])
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert [type(each) for each in told[-2:]] == [CheckpointWritten, EnergyRead]
    resume(folder)
    assert digests(folder) == digests(finished)


def test_all_checkpoints_damaged(tmp_path: Path, tiny: Tiny, finished: Path) -> None:
    """With all checkpoints of a phase damaged the phase starts anew, says so, and the digests stay."""
    folder = tmp_path / "run"
    with pytest.raises(Crash):
        run(tiny(), folder, [crash_at(CheckpointWritten, "student", 4)])
    for path in (folder / "checkpoints" / "student").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-3])
    told: list[Event] = []
    resume(folder, [told.append])
    assert sum(isinstance(event, CheckpointRefused) for event in told) == 2
    assert digests(folder) == digests(finished)


def test_resume_of_a_finished_run_only_returns_its_result(tmp_path: Path, tiny: Tiny) -> None:
    """Resuming what is finished does nothing: the result, byte for byte, and no event."""
    folder = tmp_path / "run"
    result = run(tiny(), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert resume(folder) == result == json.loads((folder / "result.json").read_text())
    assert {path: path.read_bytes() for path in before} == before


def test_seeds_make_arms(tmp_path: Path, tiny: Tiny, finished: Path) -> None:
    """More seeds train more arms without touching the student that is delivered."""
    result = run(tiny(control={"seeds": 2}), tmp_path / "two")
    assert sorted(path.stem for path in (tmp_path / "two" / "weights").glob("*.safetensors")) == [
        "control-0", "control-1", "student", "student-1", "teacher",
    ]  # fmt: skip
    assert len(result["student"]["seeds"]) == len(result["control"]["seeds"]) == 2
    assert result["digests"]["student_weights"] == digests(finished)["student_weights"]
    none = run(tiny(control={"seeds": 0}), tmp_path / "none")
    assert none["control"] is None and none["verdict"]["helped"] is None
    assert none["digests"]["student_weights"] == digests(finished)["student_weights"]


@pytest.mark.parametrize("values", [{"seed": 1}, {"objective": {"kd": {"temperature": 2.0}}}])
def test_what_matters_changes_the_student(tmp_path: Path, tiny: Tiny, finished: Path, values: dict[str, Any]) -> None:
    """Another seed or temperature gives another student: the digest is not a constant."""
    result = run(tiny(**values, control={"seeds": 0}), tmp_path / "run")
    assert result["digests"]["student_weights"] != digests(finished)["student_weights"]


def test_run_leaves_the_process_as_it_was(tmp_path: Path, tiny: Tiny) -> None:
    """Random state, threads and determinism of the process are the same after a run, also after one that crashed."""
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run(tiny(), tmp_path / "a")
    with pytest.raises(Crash):
        run(tiny(), tmp_path / "b", [crash_at(CheckpointWritten, "student")])
    after = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_changed_recipe_is_refused_by_key(tmp_path: Path, tiny: Tiny) -> None:
    """A recipe changed between stop and resume is refused with key, old and new value; undone, the run goes on."""
    folder = tmp_path / "run"
    with pytest.raises(Crash):
        run(tiny(), folder, [crash_at(CheckpointWritten, "student")])
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("temperature: 4.0", "temperature: 5.0"))
    with pytest.raises(RunDirError, match=r"objective\.kd\.temperature: 4\.0 -> 5\.0"):
        resume(folder)
    (folder / "recipe.yaml").write_text(text)
    resume(folder)


def test_changed_weights_file_is_refused(tmp_path: Path, tiny: Tiny, finished: Path) -> None:
    """A file of weights that the recipe names and that was changed meanwhile is refused by name."""
    given = tmp_path / "teacher.safetensors"
    given.write_bytes((finished / "weights" / "teacher.safetensors").read_bytes())
    teacher = tiny().teacher.model_dump(mode="json")
    recipe = tiny(teacher={**teacher, "model": {**teacher["model"], "weights": str(given)}, "train": None})
    with pytest.raises(Crash):
        run(recipe, tmp_path / "run", [crash_at(CheckpointWritten, "student")])
    given.write_bytes((finished / "weights" / "teacher.safetensors").read_bytes() + b" ")
    with pytest.raises(RunDirError, match=r"teacher\.model\.weights"):
        resume(tmp_path / "run")


def test_given_teacher_distils_as_the_trained_one(tmp_path: Path, tiny: Tiny, finished: Path) -> None:
    """A teacher given by its weights file makes the same student as the run that trained it."""
    teacher = tiny().teacher.model_dump(mode="json")
    teacher["model"]["weights"] = str(finished / "weights" / "teacher.safetensors")
    result = run(tiny(teacher={**teacher, "train": None}), tmp_path / "run")
    assert result["teacher"]["trained_here"] is False
    assert result["digests"]["student_weights"] == digests(finished)["student_weights"]


def test_diverged_run_keeps_its_checkpoint(tmp_path: Path, tiny: Tiny) -> None:
    """A run whose student diverges says where its last good checkpoint lies, and that one holds finite weights."""
    student = tiny().student.model_dump(mode="json")
    student["train"] |= {"epochs": 20, "warmup_epochs": 0, "optimizer": {"kind": "sgd", "learning_rate": 1e6}}
    with pytest.raises(DivergedError, match=r"student: .* at step \d+, samples \d+.*The last good checkpoint is"):
        run(tiny(student=student), tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints" / "student").glob("*.ckpt"))


@pytest.mark.parametrize("damage", ["cut short", "one bit"])
def test_damaged_weights_of_a_phase_are_trained_again(tmp_path: Path, tiny: Tiny, finished: Path, damage: str) -> None:
    """A finished phase whose weights file was damaged is told and trained again, to the same bits."""
    folder = tmp_path / "run"
    with pytest.raises(Crash):
        run(tiny(), folder, [crash_at(CheckpointWritten, "student")])
    path = folder / "weights" / "teacher.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "cut short":
        del data[-5:]
    else:
        data[-100] ^= 4
    path.write_bytes(data)
    result = resume(folder)
    assert result["digests"] == digests(finished)
    assert any("teacher is trained again" in warning for warning in result["warnings"])


def test_report_on_the_way_does_not_stay(tmp_path: Path, tiny: Tiny) -> None:
    """A report written while the run goes on is replaced by that of the finished run."""
    folder = tmp_path / "run"
    with pytest.raises(Crash):
        run(tiny(), folder, [crash_at(CheckpointWritten, "student")])
    (folder / "report.html").write_text("unfinished")
    resume(folder)
    assert (folder / "report.html").read_text() == "-"


def test_recipe_of_a_finished_run_can_not_be_changed(tmp_path: Path, tiny: Tiny, finished: Path) -> None:
    """Resuming a finished run whose recipe was changed says what differs instead of giving the old result."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 7", 1))
    with pytest.raises(RunDirError, match="seed: 0 -> 7"):
        resume(folder)


def test_other_versions_are_told(tmp_path: Path, tiny: Tiny) -> None:
    """A run that goes on under another torch warns that the last bits may differ."""
    folder = tmp_path / "run"
    with pytest.raises(Crash):
        run(tiny(), folder, [crash_at(CheckpointWritten, "student")])
    manifest = json.loads((folder / "run.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    (folder / "run.json").write_text(json.dumps(manifest))
    assert any("another torch: 1.0 ->" in warning for warning in resume(folder)["warnings"])


def test_failed_export_costs_only_the_file(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student whose ONNX file can't be verified still gets its result and report, with the reason."""

    def refuse(*arguments: object) -> None:
        raise StillhouseError("differs by 3")

    monkeypatch.setattr(onnx, "verify_onnx", refuse)
    result = run(tiny(export={"onnx": True}), tmp_path / "run")
    assert result["export"] == {"onnx": None, "error": "differs by 3"}
    assert any("there is no student.onnx: differs by 3" in warning for warning in result["warnings"])
    assert not list((tmp_path / "run").glob("*.onnx*")) and not list((tmp_path / "run").glob(".*onnx*"))
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_compiled_phases_don_t_influence_each_other(tmp_path: Path, tiny: Tiny) -> None:
    """A compiled student resumed in a new process equals one trained behind a compiled teacher of another batch."""
    train = {"epochs": 1, "engine": {"compile": True}, "warmup_epochs": 0}
    recipe = tiny(
        teacher={"model": {"arch": "mlp"}, "train": {**train, "batch_size": 32}},
        student={"model": {"arch": "mlp", "options": {"hidden": [4]}}, "train": {**train, "batch_size": 16}},
        control={"seeds": 0},
    )
    whole = run(recipe, tmp_path / "whole")
    with pytest.raises(Crash):
        run(recipe, tmp_path / "run", [crash_at(CheckpointWritten, "student")])
    code = (
        f"from pathlib import Path; from stillhouse.runner.run import resume; resume(Path({str(tmp_path / 'run')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["digests"] == whole["digests"]

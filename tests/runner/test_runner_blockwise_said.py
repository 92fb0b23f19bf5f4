"""What the result of a blockwise run says of its blocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.history import read_events
from stillhouse.recipe.load import validate
from stillhouse.report.blockwise.read import described
from stillhouse.runner.after import evaluate_run, export_run
from stillhouse.runner.run import resume, run

from .small_blocks import SMALL, TRAIN, explode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; only to be read."""
    found = tmp_path_factory.mktemp("blockwise") / "run"
    run(validate(SMALL), found)
    return found


@pytest.fixture
def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_the_result_says_what_was_chosen_and_from_what(result: dict[str, Any]) -> None:
    """Each block's choice is among what it was offered, and the chosen mix's costs are the sum of its blocks'; the
    student, whose norms are folded, has no more.
    """
    assert result["method"] == "blockwise" and "the teacher's blocks helped" in result["verdict"]["words"]
    told = result["blockwise"]
    params = 0
    for block, name in zip(told["blocks"], told["candidates"][0]["mix"], strict=True):
        costs = {each["name"]: each["cost"]["params"] for each in block["replacements"]}
        costs["keep"] = block["cost"]["params"]
        assert block["chosen"] == name
        params += costs[name]
    assert params == told["candidates"][0]["costs"]["params"] <= told["limits"]["params"]
    assert result["student"]["params"] <= params
    assert told["workers"] is None
    assert told["budget"] == {"params": 0.7} and set(told["fronts"]) == {"params", "macs", "latency_ms"}


def test_each_replacement_is_told_with_its_error_and_harm(result: dict[str, Any]) -> None:
    """No replacement was trained, or judged, in silence."""
    others = [other for block in result["blockwise"]["blocks"] for other in block["replacements"]]
    assert len(others) > 3
    assert all(other["error"] > 0 and other["harm"] >= 0 and 0 <= other["accuracy"] <= 1 for other in others)
    assert not any(other["diverged"] for other in others)


def test_the_stages_are_told_in_order(result: dict[str, Any]) -> None:
    """From the teacher to the fine-tuned student; the worst of the chosen ones is no better than their mean."""
    stages = result["blockwise"]["stages"]
    assert list(stages) == ["teacher", "alone_mean", "alone_worst", "assembled", "calibrated", "fine_tuned"]
    assert stages["alone_worst"] <= stages["alone_mean"] <= 1


def test_a_student_of_blocks_is_evaluated_like_any_other(folder: Path, result: dict[str, Any]) -> None:
    """The delivered student, built anew from the run's files, is as good as the result says."""
    assert evaluate_run(folder, "test").accuracy == result["student"]["accuracy"]


def test_a_student_of_blocks_is_exported_like_any_other(folder: Path, tmp_path: Path) -> None:
    """``export`` makes an ONNX file of it that answers alike, and the result says so."""
    pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    copied = Path(shutil.copytree(folder, tmp_path / "run"))
    found = export_run(copied)
    assert found["agreement"] == 1.0
    assert json.loads((copied / "result.json").read_text())["export"]["onnx"] == found


def test_a_calibration_that_diverges_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on with the blocks as they were put together, says so, and tells no such stage."""
    explode(monkeypatch, "calibrate")
    result = run(validate(SMALL), tmp_path / "run")
    assert "calibrated" not in result["blockwise"]["stages"] and "assembled" in result["blockwise"]["stages"]
    assert result["warnings"][0] == "calibrate: the loss exploded; the blocks stay as they were put together"


def test_a_teacher_whose_norms_do_not_fit_is_doubted(tmp_path: Path) -> None:
    """Its norms measured anew behind a replacement, it does much better: the run asks what it was trained to see."""
    train = {**TRAIN, "batch_size": 40, "epochs": 4}
    values = {**SMALL, "blockwise": {**SMALL["blockwise"], "train": train}}
    teacher = {**SMALL["teacher"], "train": train}
    assert run(validate({**values, "teacher": teacher}), tmp_path / "well")["teacher"]["accuracy"] > 0.6
    weights = str(tmp_path / "well" / "weights" / "teacher.safetensors")
    model = {**SMALL["teacher"]["model"], "weights": weights, "normalise": {"mean": [0.3], "std": [0.8]}}
    result = run(validate({**values, "teacher": {"model": model}}), tmp_path / "run")
    (told,) = (each for each in result["warnings"] if "with a block replaced and norms measured anew" in each)
    assert "of the scoring samples right" in told and "normalise" in told


def test_an_unfinished_run_says_what_it_knows(folder: Path, tmp_path: Path) -> None:
    """Stopped while blocks are trained: shapes, costs and errors are there, what was not chosen yet is None."""
    (tmp_path / "blocks").mkdir()
    for name in ("recipe.yaml", "blocks/costs.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    events = read_events(folder / "events.jsonl")
    assert described(tmp_path, []) is not None
    last = next(at for at, each in enumerate(events) if each["event"] == "PhaseFinished" and each["phase"] == "blocks")
    found = described(tmp_path, events[:last])
    assert found is not None and found["candidates"] == [] and list(found["stages"]) == ["teacher"]
    assert {block["chosen"] for block in found["blocks"]} == {None}
    others = [other for block in found["blocks"] for other in block["replacements"]]
    assert all(other["error"] > 0 and other["harm"] is None for other in others)


def test_a_run_without_blocks_says_nothing_of_them(finished: Path) -> None:
    """The result of a distilled student has none."""
    assert json.loads((finished / "result.json").read_text())["blockwise"] is None


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"optimizer": {"kind": "sgd", "learning_rate": 30.0}, "loss_ratio_max": 1e9}, "fine-tuning left"),
        ({"optimizer": {"kind": "sgd", "learning_rate": 30.0}, "loss_ratio_max": 1.0}, "exploded"),
    ],
)
def test_fine_tuning_that_does_no_good_is_left_out(tmp_path: Path, train: dict[str, Any], words: str) -> None:
    """The student is delivered as it was put together and calibrated, which is said; resumed, it is the same."""
    values = {**SMALL, "student": {"model": {"arch": "blockwise"}, "train": {**TRAIN, "epochs": 2, **train}}}
    result = run(validate(values), tmp_path / "run")
    (told,) = (each for each in result["warnings"] if "the student stays as it was before" in each)
    stages = result["blockwise"]["stages"]
    assert stages["fine_tuned"] == stages["calibrated"]
    assert words in told and "try a lower student.train.optimizer.learning_rate" in told
    weights = [(tmp_path / "run" / "weights" / f"{name}.safetensors").read_bytes() for name in ("assembled", "student")]
    assert weights[0] == weights[1] and not list((tmp_path / "run" / "checkpoints").rglob("*.ckpt"))
    (tmp_path / "run" / "result.json").unlink()
    assert resume(tmp_path / "run")["digests"] == result["digests"]


def test_blocks_are_fine_tuned_gently_by_default() -> None:
    """A recipe that names no optimiser has one for fine-tuning; what it says of the training else stays."""
    values = {**SMALL, "student": {"model": {"arch": "blockwise"}, "train": {"epochs": 3}}}
    found = validate(values).student.train
    assert found.optimizer.kind == "adamw" and found.optimizer.learning_rate == 1e-3 and found.epochs == 3
    assert validate({**SMALL, "student": {"model": {"arch": "blockwise"}}}).student.train.optimizer == found.optimizer

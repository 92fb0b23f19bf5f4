"""The Python API: ``stillhouse.run``, ``distill`` and ``load_student``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import stillhouse
from stillhouse.foundation.errors import DataError, ModelError, RunDirError
from stillhouse.models.weights import read_weights, weights_digest
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner import run as runs
from stillhouse.runner.after import evaluate_run

Tiny = Callable[..., Recipe]


class Pictures:
    """60 noisy grey pictures of 6x6 in three classes, as PIL images."""

    def __init__(self, count: int = 60, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.targets = [int(label) for label in random.integers(0, 3, count)]
        noise = random.integers(0, 60, (count, 6, 6))
        self.rows = [(row + 60 * label).astype(np.uint8) for row, label in zip(noise, self.targets, strict=True)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return Image.fromarray(self.rows[index]), self.targets[index]


class Vectors(Pictures):
    """The same as float vectors of 36 values."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return torch.from_numpy(self.rows[index].reshape(-1).astype(np.float32) / 255), self.targets[index]


def mlp(hidden: int, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(36, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, 3),
        )  # fmt: skip


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def unchanged(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


SECTIONS: dict[str, Any] = {
    "train": {"epochs": 2, "batch_size": 16},
    "checkpoint": {"every_s": 0},
    "compute": {"device": "cpu", "threads": 1},
}


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


@pytest.mark.parametrize("data", [Pictures(), Vectors()])
def test_distill_own_modules(tmp_path: Path, data: Any) -> None:
    """Own modules and an own dataset make a student, without changing either module or the random state."""
    teacher, student = mlp(16, 1), mlp(4, 2)
    before, teacher_before = state(student), state(teacher)
    torch.manual_seed(3)
    random = torch.get_rng_state()
    done = stillhouse.distill(teacher, student, data, out=tmp_path / "run", **SECTIONS)
    assert torch.equal(torch.get_rng_state(), random)
    assert unchanged(student, before) and unchanged(teacher, teacher_before)
    assert student.training and all(each.requires_grad for each in teacher.parameters())
    assert done.folder == tmp_path / "run" and done.verdict == done.result["verdict"]["words"]
    assert weights_digest(done.student) == done.result["digests"]["student_weights"]
    assert not done.student.training
    assert not unchanged(done.student.body, before)


def test_distill_twice_is_the_same(tmp_path: Path) -> None:
    """The same call twice, on the same objects, gives the same student to the last bit."""
    teacher, student = mlp(16, 1), mlp(4, 2, dropout=0.3)
    found = [
        stillhouse.distill(teacher, student, Pictures(), out=tmp_path / name, **SECTIONS).result["digests"]
        for name in "ab"
    ]
    assert found[0] == found[1]


def test_distill_with_a_factory(tmp_path: Path) -> None:
    """A factory is called under the run's seed: fresh initial weights, same for the same seed, random state kept."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3))

    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(ord(name))
        random = torch.get_rng_state()
        done = stillhouse.distill(mlp(16), make, Pictures(), out=tmp_path / name, seed=seed, **SECTIONS)
        found.append(done.result["digests"]["student_weights"])
        assert torch.equal(torch.get_rng_state(), random)
    assert found[0] == found[1] != found[2]


def test_distill_resumes(tmp_path: Path) -> None:
    """Stopped and called again with resume=True, distill ends in the same student."""
    teacher, student = mlp(16, 1), mlp(4, 2, dropout=0.3)
    whole = stillhouse.distill(teacher, student, Pictures(), out=tmp_path / "whole", **SECTIONS)
    folder = tmp_path / "run"
    stillhouse.distill(teacher, student, Pictures(), out=folder, **SECTIONS)
    for name in ("result.json", "report.html", "weights/control-0.safetensors", "weights/student.safetensors"):
        (folder / name).unlink()
    again = stillhouse.distill(teacher, student, Pictures(), out=folder, resume=True, **SECTIONS)
    assert again.result["digests"] == whole.result["digests"]
    with pytest.raises(RunDirError, match="needs out"):
        stillhouse.distill(teacher, student, Pictures(), resume=True, **SECTIONS)


def test_resume_with_other_objects_is_refused(tmp_path: Path) -> None:
    """Going on with other data, another teacher or another initial student is refused by name."""
    folder, teacher, student = tmp_path / "run", mlp(16, 1), mlp(4, 2)
    stillhouse.distill(teacher, student, Pictures(), out=folder, **SECTIONS)
    (folder / "result.json").unlink()
    for name, values in (
        ("data", (teacher, student, Pictures(seed=1))),
        (r"teacher\.model", (mlp(16, 5), student, Pictures())),
        (r"student\.model", (teacher, mlp(4, 5), Pictures())),
    ):
        with pytest.raises(RunDirError, match=f"{name}"):
            stillhouse.distill(*values, out=folder, resume=True, **SECTIONS)
    stillhouse.distill(teacher, student, Pictures(), out=folder, resume=True, **SECTIONS)


def test_distill_with_a_test_set(tmp_path: Path) -> None:
    """A test set given is the one evaluated, whole."""
    done = stillhouse.distill(mlp(16), mlp(4), Pictures(), test=Pictures(17, 9), out=tmp_path / "run", **SECTIONS)
    assert done.result["data"]["test"] == 17


def test_live_run_cannot_be_taken_up_by_the_command_line(tmp_path: Path) -> None:
    """Without the objects a live run is refused in words that name stillhouse.distill."""
    stillhouse.distill(mlp(16), mlp(4), Pictures(), out=tmp_path / "run", **SECTIONS)
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(DataError, match=r"stillhouse\.distill"):
        runs.resume(tmp_path / "run")
    with pytest.raises(ModelError, match=r"handed over from Python"):
        stillhouse.load_student(tmp_path / "run")


def test_misfit_model_is_told_before_training(tmp_path: Path) -> None:
    """A student with a wrong number of classes is a ModelError before anything is trained."""
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
    with pytest.raises(ModelError, match="5 classes, but the data has 3"):
        stillhouse.distill(mlp(16), wrong, Pictures(), out=tmp_path / "run", **SECTIONS)
    assert not (tmp_path / "run" / "weights").exists()


def test_run_takes_plain_values_a_recipe_or_a_file(
    tmp_path: Path, tiny: Tiny, tiny_values: Callable[..., dict[str, Any]], finished: Path
) -> None:
    """A mapping, a Recipe and a YAML file's path make the same run."""
    file = finished / "recipe.yaml"
    digests = {
        stillhouse.run(each, tmp_path / str(number)).result["digests"]["student_weights"]
        for number, each in enumerate((tiny_values(), tiny(), file, str(file)))
    }
    assert digests == {json.loads((finished / "result.json").read_text())["digests"]["student_weights"]}


def test_loaded_student_is_the_run_s(finished: Path) -> None:
    """load_student rebuilds the network: every weight, and logits on raw images, to the last bit."""
    one, other = stillhouse.load_student(finished), stillhouse.load_student(str(finished))
    stored = read_weights(finished / "weights" / "student.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in one.state_dict().items())
    inputs = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert not one.training and torch.equal(one(inputs), other(inputs))
    weight = stored["body.stage1.0.weight"]
    values = (inputs.float() / 255 - stored["preprocess.mean"]) / stored["preprocess.std"]
    hidden = torch.relu(values.flatten(1) @ weight.T + stored["body.stage1.0.bias"])
    wanted = hidden @ stored["body.head.weight"].T + stored["body.head.bias"]
    torch.testing.assert_close(one(inputs), wanted, rtol=1e-4, atol=1e-5)


def test_accuracy_in_the_result_is_the_loaded_student_s(finished: Path) -> None:
    """Evaluating the delivered student anew gives the accuracy that the result claims, class by class adding up."""
    scores = evaluate_run(finished, "test")
    result = json.loads((finished / "result.json").read_text())
    assert scores.accuracy == result["student"]["accuracy"]
    assert scores.samples == result["data"]["test"] == sum(count for _, count, _ in scores.classes)
    total = sum(count * accuracy for _, count, accuracy in scores.classes)
    assert total / scores.samples == pytest.approx(scores.accuracy)


@pytest.fixture
def copied(tmp_path: Path, finished: Path) -> Path:
    for name in ("student.json", "student.safetensors"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    return tmp_path


def test_damaged_student_is_refused(copied: Path) -> None:
    """One flipped bit in the student's weights, or the file missing, is refused."""
    path = copied / "student.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunDirError, match="does not match the checksum"):
        stillhouse.load_student(copied)
    path.unlink()
    with pytest.raises(RunDirError, match="missing"):
        stillhouse.load_student(copied)


def test_unfinished_run_has_no_student(tmp_path: Path) -> None:
    """A folder without a student is refused with the command that finishes the run."""
    with pytest.raises(RunDirError, match="stillhouse resume"):
        stillhouse.load_student(tmp_path)


def test_loading_into_a_module_of_your_own(copied: Path) -> None:
    """A module given to load_student is not changed, and one of another architecture is refused."""
    own = nn.Sequential()
    own.add_module("flatten", nn.Flatten())
    own.add_module("stage1", nn.Sequential(nn.Linear(64, 8), nn.ReLU()))
    own.add_module("head", nn.Linear(8, 10))
    before = state(own)
    inputs = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    found = stillhouse.load_student(copied, own)
    assert torch.equal(found(inputs), stillhouse.load_student(copied)(inputs))
    assert unchanged(own, before) and own.training
    with pytest.raises(ModelError, match="does not fit the model"):
        stillhouse.load_student(copied, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))

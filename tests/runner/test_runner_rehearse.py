"""What does not fit is told before anything trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stillhouse
from stillhouse.export.weights import load_student
from stillhouse.foundation.errors import ModelError, RunDirError
from stillhouse.recipe.load import parse
from stillhouse.runner.run import run

ROWS = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
DATA = [(row, int(row[0] > 0)) for row in ROWS]
TRAIN = {"epochs": 1, "batch_size": 16}


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def distil(folder: Path, teacher: nn.Module, student: nn.Module, **sections: Any) -> stillhouse.runner.api.Finished:
    settings = {"train": TRAIN, "control": {"seeds": 0}, **sections}
    return stillhouse.distill(teacher, student, DATA, out=folder, **settings)


class Auxiliary(nn.Module):
    """Answers a tuple while it trains, as networks with auxiliary heads do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, inputs: torch.Tensor) -> Any:
        logits = self.inner(inputs)
        return (logits, logits) if self.training else logits


def test_a_student_that_answers_otherwise_in_training(tmp_path: Path) -> None:
    """A student that returns a tuple in training mode is told before the teacher trains, and no folder stays."""
    with pytest.raises(ModelError, match=r"student model: in training mode it answers tuple to 16 samples"):
        distil(tmp_path / "run", net(), Auxiliary())
    assert not (tmp_path / "run").exists()


def test_a_batch_norm_that_sees_one_sample(tmp_path: Path) -> None:
    """Micro-batches that a model can't train on are told with torch's own words."""
    student = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    with pytest.raises(ModelError, match=r"a training step on 1 samples raised ValueError: Expected more than 1 value"):
        distil(tmp_path / "run", net(), student, train={**TRAIN, "accumulate": 16})


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_nan_handed_over_from_python(tmp_path: Path, role: str) -> None:
    """NaN in a module of one's own is refused by the tensor's name, before training."""
    modules = {"teacher": net(), "student": net()}
    with torch.no_grad():
        next(modules[role].parameters())[0, 0] = float("nan")
    with pytest.raises(ModelError, match=rf"the {role}: 'body.0.weight' holds NaN"):
        distil(tmp_path / "run", modules["teacher"], modules["student"])
    assert not (tmp_path / "run").exists()


def test_resume_from_python_with_other_settings(tmp_path: Path) -> None:
    """distill(resume=True) with other settings than the run's is refused by key."""
    teacher, student = net(8), net()
    distil(tmp_path / "run", teacher, student)
    with pytest.raises(RunDirError, match=r"student\.train\.epochs: 1 -> 9"):
        distil(tmp_path / "run", teacher, student, train={**TRAIN, "epochs": 9}, resume=True)
    assert distil(tmp_path / "run", teacher, student, resume=True).result["student"]["params"] == 30


def test_code_of_a_student_that_was_changed(tmp_path: Path) -> None:
    """A student of own code loads from its folder alone, moved or not; changed code is refused and not run."""
    code = tmp_path / "mine.py"
    code.write_text(
        "from torch import nn\n\n\ndef make(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    recipe = parse(
        f"""
data: {{source: {{kind: digits}}}}
teacher: {{model: {{arch: mlp}}, train: {{epochs: 1}}}}
student: {{model: {{arch: "{code}:make"}}, train: {{epochs: 1}}}}
control: {{seeds: 0}}
compute: {{device: cpu, threads: 1}}
"""
    )
    run(recipe, tmp_path / "run")
    assert load_student(tmp_path / "run").training is False
    code.unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    student = load_student(tmp_path / "moved")
    assert student(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape == (2, 10)
    ran, code = tmp_path / "ran", tmp_path / "moved" / "student_model.py"
    code.write_text(code.read_text() + f"\nopen({str(ran)!r}, 'w').close()\n")
    with pytest.raises(ModelError, match="no longer the code that the student was trained with"):
        load_student(tmp_path / "moved")
    assert not ran.exists()


def test_a_pretrained_teacher_with_a_fresh_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretrained timm teacher for another number of classes is refused: its answers would be random."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    body.pretrained_cfg = {"num_classes": 1000, "mean": (0.5,), "std": (0.5,)}  # type: ignore[assignment]
    monkeypatch.setattr("stillhouse.models.build.build_timm", lambda *arguments: body)
    recipe = parse(
        """
data: {source: {kind: digits}}
teacher: {model: {arch: "timm:resnet18", options: {pretrained: true}}}
student: {model: {arch: mlp}, train: {epochs: 1}}
compute: {device: cpu, threads: 1}
"""
    )
    with pytest.raises(ModelError, match=r"pretrained for 1000 classes, the data have 10"):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_given_teacher_that_knows_nothing_is_warned_about(tmp_path: Path) -> None:
    """A given teacher is evaluated before it teaches; one that guesses is warned about."""
    constant = nn.Linear(4, 2)
    with torch.no_grad():
        constant.weight.zero_()
    done = distil(tmp_path / "run", constant, net())
    assert any("the teacher gets" in warning and "normalise" in warning for warning in done.result["warnings"])

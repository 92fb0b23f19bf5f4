"""``stillhouse.blockwise``: a module of one's own, made small block by block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import stillhouse
from stillhouse.foundation.errors import ModelError, RecipeError, RunDirError
from stillhouse.models.weights import weights_digest

pytestmark = pytest.mark.usefixtures("not_drawn")

TRAIN = {"epochs": 2, "batch_size": 200, "optimizer": {"kind": "adamw", "learning_rate": 0.01}}
SECTIONS: dict[str, Any] = {
    "budget": {"params": 0.7},
    "blockwise": {"library": ["separable", "low_rank"], "train": TRAIN, "score_samples": 100, "candidates": 2},
    "train": {**TRAIN, "epochs": 1},
    "control": {"seeds": 0},
    "compute": {"device": "cpu", "threads": 1},
}


class Digits:
    """scikit-learn's digits as uint8 rows of [1, 8, 8]."""

    def __init__(self, count: int = 900) -> None:
        found = load_digits()
        self.targets = [int(each) for each in found.target[:count]]
        self.rows = (found.images[:count] * 15).astype(np.uint8)[:, None]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return torch.from_numpy(self.rows[index]), self.targets[index]


def own(classes: int = 10) -> nn.Module:
    """A network of one's own, not trained, in training mode: its norms are not to be read so."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = []
        for width, out in ((1, 16), (16, 16), (16, 32)):
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes)).train()


def test_a_budget_is_of_something(tmp_path: Path) -> None:
    """A bare number is refused with an example, before anything is looked at."""
    with pytest.raises(RecipeError, match=r"budget=0.25: say of what, e.g. budget=\{'params': 0.25\}"):
        stillhouse.blockwise(own(), Digits(), budget=0.25, out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_module_of_ones_own_is_made_small(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The student meets the budget, is loaded again with the teacher's module, and the module is left as it was; what
    the run warns of is logged.
    """
    teacher = own()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    done = stillhouse.blockwise(teacher, Digits(), out=tmp_path / "run", **SECTIONS)
    assert "the teacher gets 10.0 % of the validation samples right" in caplog.text
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert teacher.training
    assert done.result["student"]["params"] <= 0.7 * done.result["teacher"]["params"]
    assert weights_digest(done.student) == done.result["digests"]["student_weights"]
    again = stillhouse.load_student(tmp_path / "run", own())
    inputs = torch.from_numpy(Digits(5).rows)
    assert torch.equal(again(inputs), done.student(inputs)) and not again.training
    with pytest.raises(ModelError, match=r"handed over from Python.*load_student takes it as 'module'"):
        stillhouse.load_student(tmp_path / "run")


def test_it_goes_on_with_the_same_arguments_only(tmp_path: Path) -> None:
    """Resumed, it ends in the same student; another budget is refused by its key, another teacher by name."""
    call = {"out": tmp_path / "run", **SECTIONS}
    first = stillhouse.blockwise(own(), Digits(), **call).result["digests"]
    for name in ("result.json", "weights/student.safetensors"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(RunDirError, match=r"blockwise\.budget\.params: 0\.7 -> 0\.6"):
        stillhouse.blockwise(own(), Digits(), **{**call, "budget": {"params": 0.6}}, resume=True)
    other = own()
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    with pytest.raises(RunDirError, match=r"teacher\.model"):
        stillhouse.blockwise(other, Digits(), **call, resume=True)
    assert stillhouse.blockwise(own(), Digits(), **call, resume=True).result["digests"] == first


def test_a_budget_from_python_that_nothing_meets(tmp_path: Path) -> None:
    """The nearest one is named before anything trains, and no folder stays."""
    with pytest.raises(RecipeError, match=r"params: 0\.001 \(the least is 0\.\d+\)"):
        stillhouse.blockwise(own(), Digits(), out=tmp_path / "run", **{**SECTIONS, "budget": {"params": 0.001}})
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_own_code_is_built_again_from_the_run(tmp_path: Path) -> None:
    """Where the teacher is a file.py:function its code is copied beside the student: evaluate and load need no more."""
    code = tmp_path / "mine.py"
    code.write_text(
        "from torch import nn\n\n\ndef net(classes, channels):\n    return nn.Sequential(\n"
        "        nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),\n"
        "        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))\n"
    )
    recipe = {
        "data": {"source": {"kind": "digits"}},
        "teacher": {"model": {"arch": f"{code}:net"}, "train": TRAIN},
        "student": {"model": {"arch": "blockwise"}, "train": SECTIONS["train"]},
        "blockwise": {**SECTIONS["blockwise"], "budget": {"params": 0.7}},
        "control": {"seeds": 0},
        "compute": SECTIONS["compute"],
    }
    done = stillhouse.run(recipe, tmp_path / "run")
    code.unlink()
    found = stillhouse.load_student(tmp_path / "run")
    assert weights_digest(found) == done.result["digests"]["student_weights"]
    told = json.loads((tmp_path / "run" / "student.json").read_text())["model"]
    assert told["options"]["of"]["arch"] == "student_model.py:net"
    (tmp_path / "run" / "student_model.py").write_text("def net(): ...\n\nraise SystemExit('must not run')\n")
    with pytest.raises(ModelError, match="no longer the code"):
        stillhouse.load_student(tmp_path / "run")

"""A search from Python, for the student of one's own module."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stillhouse
from stillhouse.models.weights import weights_digest

from .test_runner_api_blockwise import Digits, own

SECTIONS: dict[str, Any] = {
    "budget": {"params": 0.5},
    "search": {
        "space": {"objective.kd.temperature": [2.0, 4.0]},
        "trials": 2,
        "rungs": [1],
        "members": 1,
        "finalists": 1,
    },
    "student": {"arch": "random_graph", "options": {"depth": [1, 1], "bottom": {"nodes": 2}}},
    "train": {"epochs": 1, "batch_size": 200},
    "control": {"seeds": 0},
    "compute": {"device": "cpu", "threads": 1},
}


def test_a_budget_is_of_something(tmp_path: Path) -> None:
    """A bare number is refused with an example, before anything is looked at."""
    with pytest.raises(stillhouse.StillhouseError, match=r"budget=0.1: say of what, e.g. budget=\{'params': 0.1\}"):
        stillhouse.search(own(), Digits(), budget=0.1, out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [None, [2]])
def test_a_section_is_said_as_in_a_recipe(tmp_path: Path, wrong: Any) -> None:
    """Or not at all."""
    with pytest.raises(stillhouse.StillhouseError, match=r"search=.*: say it as in a recipe, e.g. search=\{'trials'"):
        stillhouse.search(own(), Digits(), out=tmp_path / "run", **{**SECTIONS, "search": wrong})


def test_where_it_begins_is_said_as_in_a_recipe(tmp_path: Path) -> None:
    """A function of one's own is named by its file; what a recipe says is for no call that takes modules."""
    with pytest.raises(stillhouse.StillhouseError, match=r"student=own: .* student=\{'arch': 'FILE.py:FUNCTION'"):
        stillhouse.search(own(), Digits(), out=tmp_path / "run", **{**SECTIONS, "student": own})
    with pytest.raises(stillhouse.StillhouseError, match=r"student=\{'arch': 'mlp'\}: give a module"):
        stillhouse.distill(own(), {"arch": "mlp"}, Digits(), out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_student_is_found_for_ones_own_module(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It meets the budget, is loaded without the teacher, and the module is left as it was; resumed, it is the same.

    Whoever wants to know hears what happens.
    """
    caplog.set_level(logging.INFO, "stillhouse")
    teacher = own()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    done = stillhouse.search(teacher, Digits(), out=tmp_path / "run", **SECTIONS)
    assert isinstance(teacher, nn.Module) and teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert done.result["student"]["params"] <= 0.5 * done.result["teacher"]["params"]
    assert len(done.result["search"]["trials"]) == 2
    assert "TrialReached: trial=1, rung=0, epochs=1, members=(" in caplog.text and "Progress" not in caplog.text
    again = stillhouse.load_student(tmp_path / "run")
    assert weights_digest(again) == done.result["digests"]["student_weights"]
    best = stillhouse.run(tmp_path / "run" / "best.yaml", tmp_path / "best", teacher=teacher, data=Digits())
    assert best.result["digests"]["student_weights"] == done.result["digests"]["student_weights"]
    (tmp_path / "run" / "result.json").unlink()
    resumed = stillhouse.search(teacher, Digits(), out=tmp_path / "run", resume=True, **SECTIONS)
    assert resumed.result["digests"] == done.result["digests"]

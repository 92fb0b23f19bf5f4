"""A blockwise student whose teacher has blocks that may be left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stillhouse.recipe.load import validate
from stillhouse.runner.run import run

from .small_blocks import SMALL, TRAIN


@pytest.mark.usefixtures("not_drawn")
def test_what_has_nothing_to_learn_is_judged_untrained(tmp_path: Path) -> None:
    """A skip has no weights: the run goes through, judges it, and takes it where nothing else is offered."""
    teacher = {"model": {"arch": "resnet", "options": {"width": 4, "blocks": [2, 1]}}, "train": TRAIN}
    blockwise = {**SMALL["blockwise"], "blocks": "block", "library": ["skip"], "budget": {"params": 0.95}}
    run(validate({**SMALL, "teacher": teacher, "blockwise": blockwise}), tmp_path / "run")
    choice = json.loads((tmp_path / "run" / "blocks" / "choice.json").read_text())
    assert "skip" in choice["candidates"][0]["mix"]
    assert not list((tmp_path / "run" / "weights" / "blocks").rglob("*.safetensors"))

"""A blockwise recipe that runs in seconds."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse.foundation.errors import DivergedError
from stillhouse.runner import phases

TRAIN = {"epochs": 2, "batch_size": 400, "optimizer": {"kind": "adamw", "learning_rate": 0.01}}
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"source": {"kind": "digits"}, "augment": {"pad_px": 1}},
    "teacher": {
        "model": {"arch": "vgg", "options": {"width": 8, "blocks": [1, 1]}},
        "train": {**TRAIN, "epochs": 4},
    },
    "student": {"model": {"arch": "blockwise"}, "train": {**TRAIN, "epochs": 1}},
    "blockwise": {
        "blocks": "layer",
        "library": ["separable", "low_rank"],
        "budget": {"params": 0.7},
        "train": TRAIN,
        "score_samples": 100,
        "candidates": 2,
    },
    "control": {"seeds": 0},
    "compute": {"device": "cpu", "threads": 1},
}


def explode(monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    """Let a phase's training diverge."""
    fit = phases.fit

    def exploding(*arguments: Any) -> Any:
        if arguments[-1].phase == phase:
            raise DivergedError(f"{phase}: the loss exploded")
        return fit(*arguments)

    monkeypatch.setattr(phases, "fit", exploding)

"""What is tried is chosen before it is trained, by how much it resembles the teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stillhouse.data.open import open_data, survey
from stillhouse.foundation.events import Event
from stillhouse.foundation.search_events import TrialBegun
from stillhouse.runner.materials import gather
from stillhouse.runner.run import run
from stillhouse.runner.search.candidate import Limits
from stillhouse.runner.search.screening import Screen, alike

from .lessons import told, weights
from .test_runner_search import recipe


def test_alike_is_a_cosine() -> None:
    """1 for answers that differ by a shift of all samples, or by scale; less for others; never NaN."""
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(30, 5, generator=draw)
    known = torch.log_softmax(logits, dim=1)
    same = alike(known + torch.tensor([0.3, -0.2, 0.0, 0.1, -0.2]))
    assert float((alike(known) * alike(known)).sum()) == pytest.approx(1, abs=1e-5)
    assert float((same * alike(known)).sum()) > 0.95
    assert abs(float((alike(torch.randn(30, 5, generator=draw)) * alike(known)).sum())) < 0.6
    assert torch.isfinite(alike(torch.zeros(4, 3))).all()


def test_a_search_screens_what_it_tries(tmp_path: Path) -> None:
    """Other trials than without; the same when it is done again; what can't be built is not chosen."""
    events: dict[str, list[Event]] = {"without": [], "with": [], "again": []}
    found = {}
    for name, heard in events.items():
        sought = {"screen": 1 if name == "without" else 4, "trials": 4}
        found[name] = run(recipe(sought), tmp_path / name, [heard.append])
    points = {name: [each.point for each in told(events[name], TrialBegun)] for name in events}
    assert points["with"][0] == points["without"][0], "the recipe's own point comes first"
    assert points["with"] == points["again"] != points["without"]
    assert weights(found["with"]) == weights(found["again"])
    teachers = [found[name]["teacher"] for name in ("with", "without")]
    assert teachers[0]["accuracy"] == teachers[1]["accuracy"], "the teacher is looked at, not changed"


def test_a_teacher_is_left_as_it_was(tmp_path: Path) -> None:
    """Its norms neither learn from the samples of a screen nor answer by them."""
    asked = recipe()
    found = survey(asked.data, asked.seed)
    materials = gather(asked, open_data(found, asked.data, tmp_path, lambda *_: None), None)
    teacher = materials.networks.teacher().train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    trained = Screen(materials, teacher, Limits({}, {}))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    again = Screen(materials, teacher.eval(), Limits({}, {}))
    assert torch.equal(trained._alike, again._alike)

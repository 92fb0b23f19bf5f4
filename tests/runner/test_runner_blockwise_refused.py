"""What can't be replaced block by block is told before anything trains, and leaves nothing behind."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commandline import nothing_left, refused, shell

from stillhouse.foundation.block_events import BlocksOffered
from stillhouse.foundation.errors import DataError, ModelError, RecipeError
from stillhouse.foundation.events import Event, Warned
from stillhouse.recipe.load import dump, validate
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.blockwise import conversion
from stillhouse.runner.blockwise.budget import Costs
from stillhouse.runner.run import resume, run

from .small_blocks import SMALL

CODE = '''
import torch
from torch import nn


def convolution(width, out):
    return nn.Sequential(nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())


def one_block(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))


class Deciding(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.body = convolution(channels, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, inputs):
        inner = self.body(inputs).mean((2, 3))
        return self.head(inner if inner.sum() > 0 else -inner)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = convolution(8, 8)

    def forward(self, inputs):
        return self.inner(inputs) if inputs.sum() > 0 else inputs


def partly(classes, channels):
    return nn.Sequential(convolution(channels, 8), Branching(), nn.ReLU(), nn.Flatten(), nn.Linear(512, classes))


class Recurrent(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.first, self.cell, self.head = convolution(channels, 8), nn.LSTM(64, 8), nn.Linear(8, classes)

    def forward(self, inputs):
        rows = self.first(inputs).flatten(2).transpose(0, 1)
        return self.head(self.cell(rows)[0][-1])


class Linears(nn.Module):
    """Cut, but of nothing that the library knows."""

    def __init__(self, classes, channels):
        super().__init__()
        self.first, self.second = nn.Linear(64 * channels, 8), nn.Linear(8, classes)

    def forward(self, inputs):
        return self.second(torch.relu(self.first(inputs.flatten(1))))


class Woven(nn.Module):
    """Two tensors are alive from its beginning to its end."""

    def __init__(self, classes, channels):
        super().__init__()
        self.left, self.right = one_block(classes, channels), one_block(classes, channels)

    def forward(self, inputs):
        return self.left(inputs) * self.right(inputs)


class Shared(nn.Module):
    """One convolution used twice, with others between."""

    def __init__(self, classes, channels):
        super().__init__()
        self.first, self.twice, self.between = convolution(channels, 8), convolution(8, 8), convolution(8, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, inputs):
        inner = self.twice(self.between(self.twice(self.first(inputs))))
        return self.head(inner.mean((2, 3)))
'''


def changed(**update: Any) -> Recipe:
    """The small recipe with keys of its section 'blockwise', and the teacher's model, replaced."""
    values = copy.deepcopy(SMALL)
    values["teacher"]["model"] = update.pop("model", values["teacher"]["model"])
    return validate(values | {"blockwise": values["blockwise"] | update})


@pytest.fixture
def own(tmp_path: Path) -> Any:
    (tmp_path / "own.py").write_text(CODE)
    return lambda name: {"arch": f"{tmp_path / 'own.py'}:{name}"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("one_block", "can't be cut"),
        ("Woven", "everywhere inside more than one tensor is alive"),
        ("Deciding", "its forward can't be traced: .*control flow"),
    ],
)
def test_a_network_that_can_not_be_cut(name: str, words: str, own: Any, tmp_path: Path) -> None:
    """Why and where is told before the teacher trains, with what else can be done; no folder stays."""
    with pytest.raises(ModelError, match=rf"teacher model: .*{words}.*blockwise\.blocks.*student of your own"):
        run(changed(model=own(name)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_in_which_nothing_can_be_replaced(own: Any, tmp_path: Path) -> None:
    """Where it can be cut, but nothing of the library fits a block, that is told, not a budget."""
    with pytest.raises(ModelError, match=r"teacher model: nothing of blockwise\.library .* 2 blocks \(first, second\)"):
        run(changed(model=own("Linears")), tmp_path / "run")


def test_a_part_that_can_not_be_looked_into_is_named(own: Any, tmp_path: Path) -> None:
    """A module that decides by values stays whole within the network; that is said before anything trains."""
    heard: list[Event] = []
    with pytest.raises(RecipeError, match="no mix of replacements"):
        run(changed(model=own("partly"), budget={"params": 0.001}), tmp_path / "run", [heard.append])
    told = [each.message for each in heard if isinstance(each, Warned)]
    assert len(told) == 1 and told[0].startswith("blocks: 1 can't be looked into (TraceError"), told


def test_a_recurrent_block_is_kept(own: Any, tmp_path: Path) -> None:
    """What has a state within is one block, and stays the teacher's; the others are replaced."""
    result = run(changed(model=own("Recurrent"), budget={"params": 0.999}), tmp_path / "run")
    kept = {each["name"]: each["replacements"] == [] for each in result["blockwise"]["blocks"]}
    assert kept["cell"] and not kept["first"]


def test_blocks_that_are_not_there(tmp_path: Path) -> None:
    """A module named in blockwise.blocks that the teacher doesn't have is told by name, through the command line."""
    path = tmp_path / "small.yaml"
    path.write_text(dump(changed(blocks=["stage1", "nowhere"])))
    refused(shell("run", path, "--out", "run", cwd=tmp_path), "blocks: the network has no module 'nowhere'")
    path.unlink()
    nothing_left(tmp_path)


def test_too_few_samples_for_a_batch_of_blocks(tmp_path: Path) -> None:
    """A batch larger than the training split is told before the teacher trains."""
    train = SMALL["blockwise"]["train"]
    with pytest.raises(DataError, match=r"a batch of 4000 is more than"):
        run(changed(train={**train, "batch_size": 4000}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_student_of_blocks_is_not_said_to_be_too_large(tmp_path: Path) -> None:
    """The teacher that stands for the student until blocks are chosen brings no warning."""
    heard: list[Event] = []
    run(changed(), tmp_path / "run", [heard.append])
    assert not any(isinstance(each, Warned) and "smaller" in each.message for each in heard)
    told = next(each for each in heard if isinstance(each, BlocksOffered))
    assert told.limits["params"] == pytest.approx(0.7 * told.whole["params"])


def test_shared_weights_stay_together(own: Any, tmp_path: Path) -> None:
    """Uses of one weight are one block, with all that lies between."""
    heard: list[Event] = []
    with pytest.raises(RecipeError, match="no mix of replacements"):
        run(changed(model=own("Shared"), budget={"params": 0.001}), tmp_path / "run", [heard.append])
    run(changed(model=own("Shared"), budget={"params": 0.9}), tmp_path / "run", [heard.append])
    assert next(each for each in heard if isinstance(each, BlocksOffered)).blocks == 3


def test_a_budget_is_refused_before_anything_trains(tmp_path: Path) -> None:
    """The command line names the nearest budget, ends with 2, and leaves no folder."""
    path = tmp_path / "small.yaml"
    path.write_text(dump(changed(budget={"params": 0.01, "macs": 0.9})))
    said = shell("run", path, "--out", "run", cwd=tmp_path)
    refused(said, "blockwise.budget: no mix of replacements meets params: 0.01 (the least is 0.", "blockwise.library")
    assert "from step" not in said.out
    path.unlink()
    nothing_left(tmp_path)


def test_a_latency_that_is_missed_later_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the budget was met before the teacher trained and is missed after, the run ends in words, and goes on."""
    measured = conversion.measured

    def slow(*arguments: Any) -> Costs:
        found = measured(*arguments)
        return Costs(
            [{name: replace(cost, latency_ms=1e6) for name, cost in own.items()} for own in found.options], found.whole
        )

    monkeypatch.setattr(conversion, "measured", slow)
    recipe = changed(budget={"latency_ms": 1e5})
    with pytest.raises(RecipeError, match=r"latency_ms: 100000 \(the least is "):
        run(recipe, tmp_path / "run")
    monkeypatch.setattr(conversion, "measured", measured)
    assert resume(tmp_path / "run")["blockwise"]["limits"] == {"latency_ms": 1e5}

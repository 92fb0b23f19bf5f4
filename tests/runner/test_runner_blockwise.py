"""A run whose student is made of its teacher's blocks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stillhouse.blocks import train
from stillhouse.blocks.assemble import cut
from stillhouse.blocks.score import Score
from stillhouse.data.open import open_data, survey
from stillhouse.export.weights import load_student
from stillhouse.foundation.block_events import ReplacementTrained
from stillhouse.foundation.errors import DivergedError, Interrupted, RecipeError, UserError
from stillhouse.foundation.events import Evaluated, Event, PhaseStarted, Warned
from stillhouse.models.build import build
from stillhouse.models.interface import Interface
from stillhouse.recipe.architectures import ModelSection, Normalisation
from stillhouse.recipe.blockwise import BudgetSection
from stillhouse.recipe.load import dump, load
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.blockwise import conversion
from stillhouse.runner.blockwise.replacements import offered
from stillhouse.runner.materials import gather
from stillhouse.runner.run import resume, run

from .small_blocks import SMALL, TRAIN

SEEN = Normalisation(mean=(0.5,), std=(0.25,))
FORKED = Path(__file__).with_name("forked.py")
BLOCKWISE: dict[str, Any] = {name: SMALL[name] for name in ("teacher", "student", "blockwise", "control")}

pytestmark = pytest.mark.usefixtures("not_drawn")


@pytest.fixture
def recipe(tiny: Callable[..., Recipe]) -> Recipe:
    return tiny(**BLOCKWISE)


def changed(recipe: Recipe, **update: object) -> Recipe:
    assert recipe.blockwise is not None
    return recipe.model_copy(update={"blockwise": recipe.blockwise.model_copy(update=update)})


def test_a_student_is_made_of_its_teachers_blocks(tmp_path: Path, recipe: Recipe) -> None:
    """It meets the budget, what was chosen stands in its recipe, and it can be built from the run's files alone."""
    result = run(recipe, tmp_path / "run")
    assert result["student"]["params"] <= 0.7 * result["teacher"]["params"]
    told = json.loads((tmp_path / "run" / "student.json").read_text())["model"]["options"]
    choice = json.loads((tmp_path / "run" / "blocks" / "choice.json").read_text())
    assert told["mix"] == choice["candidates"][0]["mix"] and set(told["mix"]) != {"keep"}
    student = load_student(tmp_path / "run")
    assert student(torch.zeros(1, *result["data"]["shape"])).shape == (1, 10)
    harms = [each["score"]["harm"] for each in choice["candidates"]]
    assert harms == sorted(harms)


def test_accuracy_is_told_at_each_stage(tmp_path: Path, recipe: Recipe) -> None:
    """Assembled, calibrated and fine-tuned: each is measured on the validation split, in that order."""
    heard: list[Event] = []
    run(recipe, tmp_path / "run", [heard.append])
    phases = [each.phase for each in heard if isinstance(each, Evaluated)]
    stages = [phase for phase in dict.fromkeys(phases) if phase != "teacher"]
    assert stages == ["assembled", "calibrate", "calibrated", "student"]


def test_a_budget_that_nothing_meets_names_what_can_be_met(tmp_path: Path, recipe: Recipe) -> None:
    """The nearest budget is named, and with it the run goes through."""
    too_small = changed(recipe, budget=recipe.blockwise.budget.model_copy(update={"params": 0.01}))  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match=r"params: 0.01 \(the least is (0\.\d+)\)") as found:
        run(too_small, tmp_path / "run")
    least = float(str(found.value).split("the least is ")[1].split(")")[0])
    enough = changed(recipe, budget=recipe.blockwise.budget.model_copy(update={"params": least}))  # type: ignore[union-attr]
    result = run(enough, tmp_path / "other")
    assert result["student"]["params"] <= least * result["teacher"]["params"]


def test_a_stopped_run_goes_on_where_each_replacement_stood(tmp_path: Path, recipe: Recipe) -> None:
    """Stopped in the middle of the blocks and resumed: the same student, and no replacement starts at step 0 again."""
    expected = run(recipe, tmp_path / "whole")["digests"]["student_weights"]
    heard: list[Event] = []

    def stop(event: Event) -> None:
        heard.append(event)
        if isinstance(event, ReplacementTrained) and event.step == 3:
            raise Interrupted("stopped by the test", 15)

    with pytest.raises(Interrupted):
        run(recipe, tmp_path / "run", [stop])
    again: list[Event] = []
    assert resume(tmp_path / "run", [again.append])["digests"]["student_weights"] == expected
    started = next(each for each in again if isinstance(each, PhaseStarted) and each.phase == "blocks")
    assert started.step >= 2
    third: list[Event] = []
    (tmp_path / "run" / "result.json").unlink()
    assert resume(tmp_path / "run", [third.append])["digests"]["student_weights"] == expected
    assert not any(isinstance(each, PhaseStarted) and each.phase == "blocks" for each in third)


def test_a_diverging_replacement_is_given_up_with_its_story(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that always diverges is tried three times, told, and never chosen; the run goes on without it."""
    step = train.Loop.step

    def explode(self: train.Loop, *args: Any) -> None:
        if self.context.phase.endswith("/low_rank-2"):
            raise DivergedError(f"{self.context.phase}: the loss is infinite")
        step(self, *args)

    monkeypatch.setattr(train.Loop, "step", explode)
    heard: list[Event] = []
    run(recipe, tmp_path / "run", [heard.append])
    choice = json.loads((tmp_path / "run" / "blocks" / "choice.json").read_text())
    stories = {tuple(key): lines for *key, lines in choice["diverged"]}
    assert stories and all(name == "low_rank-2" and len(lines) == 3 for (_, name), lines in stories.items())
    assert not any("low_rank-2" in own for own in choice["alone"])
    assert sum(isinstance(each, Warned) and "given up" in each.message for each in heard) == len(stories)


def test_an_automatic_engine_is_settled_before_any_block_is_trained(
    tmp_path: Path, tiny: Callable[..., Recipe]
) -> None:
    """What is tried stands in the run's recipe, nothing of it auto, and nothing is compiled unasked."""
    section = {**BLOCKWISE["blockwise"], "train": {**TRAIN, "engine": "auto"}}
    run(tiny(**{**BLOCKWISE, "blockwise": section}), tmp_path / "run")
    settled = load(tmp_path / "run" / "recipe.yaml").blockwise
    assert settled is not None and settled.train.engine.settled and settled.train.engine.compile is False


@pytest.mark.parametrize(
    ("name", "text"), [("choice", None), ("choice", "{}"), ("costs", "torn"), ("stages", None), ("stages", "[]")]
)
def test_notes_that_were_damaged_are_measured_again(
    tmp_path: Path, recipe: Recipe, name: str, text: str | None
) -> None:
    """A file of the folder ``blocks`` that is gone or torn is made again, no block is trained, the student the same."""
    expected = run(recipe, tmp_path / "run")
    note = tmp_path / "run" / "blocks" / f"{name}.json"
    note.unlink() if text is None else note.write_text(text)
    (tmp_path / "run" / "result.json").unlink()
    heard: list[Event] = []
    result = resume(tmp_path / "run", [heard.append])
    assert result["digests"]["student_weights"] == expected["digests"]["student_weights"]
    assert result["blockwise"]["stages"] == expected["blockwise"]["stages"]
    assert "blocks" not in [each.phase for each in heard if isinstance(each, PhaseStarted)]


def test_norms_before_a_block_count(tmp_path: Path, tiny: Callable[..., Recipe]) -> None:
    """What stays before a block is in the costs of every mix: the student meets its budget, to the parameter."""
    code = tmp_path / "pre.py"
    code.write_text(
        "from torch import nn\n"
        "def net(classes, channels):\n"
        "    def block(a, b): return [nn.MaxPool2d(2), nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, b, 3, padding=1)]\n"
        "    return nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), *block(8, 16), nn.ReLU(), "
        "*block(16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))\n"
    )
    teacher = {"model": {"arch": f"{code}:net"}, "train": TRAIN}
    result = run(tiny(**{**BLOCKWISE, "teacher": teacher}), tmp_path / "run")
    made = result["blockwise"]["candidates"][0]["costs"]["params"]
    weights = load_file(tmp_path / "run" / "weights" / "student.safetensors")
    learnt = [name for name in weights if name.startswith("body.") and "running" not in name and "num_b" not in name]
    assert sum(weights[name].numel() for name in learnt) == made <= 0.7 * result["teacher"]["params"]


def test_replacements_are_judged_on_all_classes(recipe: Recipe, tmp_path: Path) -> None:
    """However few samples are asked for, every class has its share of them."""
    found = survey(recipe.data, recipe.seed)
    data = open_data(found, recipe.data, tmp_path, lambda name, done, count: None)
    cpu = recipe.model_copy(update={"compute": recipe.compute.model_copy(update={"device": "cpu"})})
    materials = gather(cpu, data, None)
    batches = list(materials.part_of_validation(50))
    counts = torch.bincount(torch.cat([batch.targets for batch in batches]), minlength=10)
    assert counts.sum() == 50 and counts.min() >= 4
    assert sum(len(batch) for batch in materials.part_of_validation(10**6)) == len(data.splits.validation)


@pytest.mark.parametrize(
    ("section", "story"),
    [
        ({"student": {"model": {"arch": "blockwise", "options": {"mix": ["keep"]}}}}, r"options\.mix.*leave them out"),
        ({"objective": {"features": [{"teacher": "stage1", "student": "stage1.0"}]}}, "no block of the student"),
        ({"blockwise": {**BLOCKWISE["blockwise"], "train": {**TRAIN, "engine": {"precision": "fp16"}}}}, "needs a"),
    ],
)
def test_what_could_only_fail_later_is_refused_at_once(
    tmp_path: Path, tiny: Callable[..., Recipe], section: dict[str, Any], story: str
) -> None:
    """Before anything is trained, and nothing is left behind."""
    with pytest.raises(UserError, match=story):
        run(tiny(**{**BLOCKWISE, **section}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_block_that_saves_nothing_is_kept(recipe: Recipe) -> None:
    """The first convolution has few parameters and many multiply-adds: replaced only where those are limited."""
    network = build(
        ModelSection(arch="vgg", options={"width": 16}), Interface((3, 32, 32), True, 10), SEEN, 0, "teacher"
    )
    blocks = cut(network, Interface((3, 32, 32), True, 10), "layer")
    assert recipe.blockwise is not None
    none, *others = offered(blocks, recipe)
    assert not none and all(others[:-1])
    for budget in (BudgetSection(macs=0.5), BudgetSection(params=0.5, latency_ms=1.0)):
        assert offered(blocks, changed(recipe, budget=budget))[0]


def test_replacements_that_find_no_room_are_trained_in_groups(tmp_path: Path, recipe: Recipe) -> None:
    """Said, each group a phase of its own, and the student is the same to the last bit; resumed in the second, too."""
    wide = {"model": recipe.teacher.model.model_copy(update={"options": {"width": 40, "blocks": [1, 2]}})}  # type: ignore[union-attr]
    large = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=wide)})
    expected = run(large, tmp_path / "whole")["digests"]["student_weights"]
    heard: list[Event] = []

    def stop(event: Event) -> None:
        heard.append(event)
        if isinstance(event, ReplacementTrained) and event.phase == "blocks-1" and event.step == 3:
            raise Interrupted("stopped by the test", 15)

    with pytest.raises(Interrupted):
        run(changed(large, memory_max_mb=4), tmp_path / "run", [stop])
    assert any(isinstance(each, Warned) and "groups, one by one" in each.message for each in heard)
    again: list[Event] = []
    assert resume(tmp_path / "run", [again.append])["digests"]["student_weights"] == expected
    assert "blocks" not in [each.phase for each in again if isinstance(each, PhaseStarted)]


def test_a_replacement_without_finite_answers_is_not_chosen(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out of the choice, with its story."""
    judge = conversion.judge_alone

    def judged(*args: Any) -> list[dict[str, Score]]:
        found = judge(*args)
        for own in found:
            if "separable" in own:
                own["separable"] = Score(math.nan, 0.1)
        return found

    monkeypatch.setattr(conversion, "judge_alone", judged)
    run(recipe, tmp_path / "run")
    choice = json.loads((tmp_path / "run" / "blocks" / "choice.json").read_text())
    assert {name for _, name, _ in choice["diverged"]} == {"separable"}
    assert not any("separable" in each["mix"] for each in choice["candidates"])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["half written", "weights written"])
def test_sigkill_at_every_step(tmp_path: Path, recipe: Recipe, how: str) -> None:
    """Killed at every checkpoint or weights file of every replacement: the same student, to the last bit."""
    expected = run(recipe, tmp_path / "whole")["digests"]["student_weights"]
    path = tmp_path / "tiny.yaml"
    path.write_text(dump(recipe))
    command = [sys.executable, str(FORKED), str(path), str(tmp_path / "run"), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["digest"] == expected
    assert found["kills"] >= 10

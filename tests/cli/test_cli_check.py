"""``check`` says where a run writes, and how much room its answers take."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from commandline import Call, refused

from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.recipe.knowledge import DenseLogits, TopLogits
from stillhouse.runner.plan import logits_bytes


def test_the_folder_of_labels_is_among_what_is_written(tiny: Path, call: Call) -> None:
    """The label store's folder is named with the run's; not where nothing is kept or asked."""
    said = call("check", tiny, "--set", "store.path=labels")
    assert "writes       runs/tiny/ (" in said.out and "writes       labels/ (store.path: " in said.out
    for setting in ("knowledge.source=inline", "objective={cross_entropy: 1, kd: null}"):
        assert call("check", tiny, "--set", setting).out.count("writes ") == 1


def test_the_largest_size_of_a_mass(tiny: Path, call: Call) -> None:
    """Where the number of logits is still to be found, the room for all of them is said to be the most."""
    largest = call("check", tiny, "--set", "knowledge.logits={kind: top, k: 3}").out
    size = largest.partition("each sample, ")[2].partition(" bytes when all are answered")[0]
    said = call("check", tiny, "--set", "knowledge.logits={kind: top, mass: 0.9}")
    assert f"each sample, at most {size} bytes when all are answered\n" in said.out
    tight = call("check", tiny, "--set", "knowledge.logits={kind: top, mass: 0.9}", "--set", "store.bytes_max=10")
    assert "store.bytes_max is 10: not all may find room" in tight.out


@pytest.mark.parametrize("classes", [2, 7, 256, 257, 70_000])
def test_bytes_are_those_of_the_codec(classes: int) -> None:
    """The size said without torch is that of the rows; a mass never takes more than it says."""
    for dtype in ("fp32", "fp16"):
        row = Codec(Ask(), Encoding(dtype), classes, {}).row
        assert logits_bytes(DenseLogits(kind="dense", dtype=dtype), classes) == row.itemsize
    most = logits_bytes(TopLogits(kind="top", mass=0.9), classes)
    for k in {1, classes // 2, classes - 1, classes}:
        size = Codec(Ask(), Encoding("top", k), classes, {}).row.itemsize
        assert logits_bytes(TopLogits(kind="top", k=k), classes) == size <= most


def test_several_students_are_said(tiny: Path, call: Call) -> None:
    """The plan says how many train together; what is refused about them names both keys."""
    asked = ("--set", "fleet.students=[2, 4]", "--set")
    said = call("check", tiny, *asked, "student.train.accumulate=4")
    assert "by 2 to 4 students together" in " ".join(said.out.split())
    assert "together" not in call("check", tiny).out
    refused(call("check", tiny, *asked, "student.train.accumulate=1"), "fleet.students", "student.train.accumulate: 4")


def test_the_fleet_is_said(tiny: Path, call: Call) -> None:
    """Who answers, where and how, and what becomes of the student without them; what a run alone can see is named."""
    said = call("check", tiny, "--workers", "1-3", "--set", "fleet={device: cuda, threads: 2, engine: own}").out
    line = next(each for each in said.splitlines() if each.startswith("workers "))
    for words in ("1 to 3,", "processes of this machine: cuda, 2 threads each", "engines of their own"):
        assert words in line
    assert "if none left after 30 s the teacher answers in the student's process" in said
    assert "whether fleet.device: cuda is there" in said
    on_ray = call("check", tiny, "--workers", 2, "--set", "fleet={backend: ray, patience_s: 5, without_teachers: stop}")
    assert "2 on a Ray cluster" in on_ray.out and "after 5 s the run stops" in on_ray.out
    assert "workers      none" in call("check", tiny).out and "fleet.device" not in call("check", tiny).out


def test_a_student_of_blocks_is_said(tiny: Path, call: Call) -> None:
    """How the teacher is cut, what may replace its blocks, by what budget, and the command that shows them."""
    blockwise = "blockwise={blocks: layer, library: [separable, low_rank], budget: {params: 0.25, latency_ms: 0.5}, "
    asked = (
        "student.model={arch: blockwise}",
        "teacher.model={arch: vgg, options: {width: 4, blocks: [1]}}",
        f"{blockwise}train: {{batch_size: 16}}}}",
    )
    said = call("check", tiny, *(part for each in asked for part in ("--set", each)))
    assert said.code == 0, said
    for words in (
        "cut by layer; each is kept, or replaced by separable, low_rank",
        "at most 25 % of its parameters and 0.5 ms a sample",
        "all on one pass of the teacher, then 2 more for all together; judged by 9 samples",
        "student      the teacher with blocks replaced; 1 epochs",
        "whether the teacher can be cut and the budget met",
    ):
        assert words in said.out, said.out
    command = next(line for line in said.out.splitlines() if line.startswith("see ")).split(None, 1)[1]
    shown = call(*shlex.split(command.partition(" (")[0])[1:])
    assert shown.code == 0 and "separable" in shown.out, shown


def test_a_search_is_said(tiny: Path, call: Call) -> None:
    """Trials, rungs, what varies and how, the budget; a space without sense is refused, with the key."""
    space = (
        "objective.kd.temperature: {low: 1, high: 20, log: true}, objective.kd.weight: {low: 0.5, high: 1.0}, "
        "objective.cross_entropy: {rest_of: objective.kd.weight}"
    )
    asked = f"search={{budget: {{params: 0.1, latency_ms: 2}}, trials: 9, rungs: [2, 4], space: {{{space}}}}}"
    refused(call("check", tiny, "--set", asked), "search.rungs: 4 epochs are more than the student's")
    tiny.write_text(tiny.read_text().replace("epochs: 1", "epochs: 4"))
    said = call("check", tiny, "--set", asked)
    assert said.code == 0, said
    for words in (
        "9 trials by TPESampler, compared after 2 and 4 epochs, where one of 3 goes on; 3 members of a family at",
        "objective.kd.temperature: 1 to 20, by its logarithm",
        "objective.cross_entropy: 1 - objective.kd.weight",
        "the best of up to 3 that are trained to the end, with at most 10 % of the parameters and 2 ms",
    ):
        assert words in said.out, said.out
    single = call("check", tiny, "--set", asked, "--set", "search.rungs=[1]", "--set", "search.finalists=1").out
    assert "9 trials by TPESampler, compared after 1 epoch; 3 members" in single and "the best, that is tr" in single
    typo = call("check", tiny, "--set", asked, "--set", "search.sampler={name: GPSamplr}")
    refused(typo, "search.sampler.name", "did you mean 'GPSampler'?")
    several = ("--set", "search.space.data.augment.colour=[0, 0.1]")
    assert (
        "views of each sample, of up to 2 augmentations together" in call("check", tiny, "--set", asked, *several).out
    )
    wrong = asked.replace("kd.temperature", "kd.heat")
    refused(call("check", tiny, "--set", wrong), "search.space", "unknown key 'objective.kd.heat'")


def test_a_batch_too_large_for_blocks(tiny: Path, call: Call) -> None:
    """A batch that the training samples don't fill is told by its key."""
    asked = ("student.model={arch: blockwise}", "blockwise={budget: {macs: 0.5}, train: {batch_size: 500}}")
    refused(call("check", tiny, *(part for each in asked for part in ("--set", each))), "blockwise.train.batch_size")


def test_block_workers_are_told_and_need_blocks(tiny: Path, call: Call) -> None:
    """How many processes train the blocks is said; where there are no blocks, that they have nothing to do."""
    asked = ("student.model={arch: blockwise}", "blockwise={budget: {macs: 0.5}, train: {batch_size: 16}}")
    said = call("check", tiny, "--block-workers", "3", *(part for each in asked for part in ("--set", each)))
    assert said.code == 0 and "all on one pass of the teacher that 3 processes share" in said.out, said
    refused(call("check", tiny, "--block-workers", "3"), "fleet.block_workers", "no section 'blockwise'")

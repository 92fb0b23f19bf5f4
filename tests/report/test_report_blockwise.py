"""The page of a run of blocks: what was offered, chosen and done; whole, unfinished, or strange."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.history import read_events
from stillhouse.report.blockwise.errors import PANELS_MAX
from stillhouse.report.blockwise.read import described
from stillhouse.report.html import write_report

from .test_report_html import Outline

Json = dict[str, Any]
MakeRun = Callable[..., Path]
RECIPE = "name: blocks\nblockwise:\n  budget: {params: 0.25, latency_ms: 0.8, macs: null}\n"
WHOLE = {"params": 40_000, "macs": 2_000_000, "bytes": 160_000, "latency_ms": 1.0}


def cost(share: float) -> Json:
    return {"params": int(40_000 * share), "macs": 2e6 * share, "bytes": 160_000 * share, "latency_ms": share}


def mix(names: list[str], share: float, accuracy: float) -> Json:
    score = {"harm": 1 - accuracy, "accuracy": accuracy}
    return {"mix": names, "expected": 0.0123, "score": score, "costs": cost(share)}


def trained(block: str, replacement: str, *errors: float) -> list[Json]:
    return [
        {"event": "ReplacementTrained", "phase": "blocks", "block": block, "replacement": replacement,
         "step": 4 * epoch, "epoch": float(epoch), "error": error}
        for epoch, error in enumerate(errors, 1)
    ]  # fmt: skip


def evaluated(phase: str, accuracy: float) -> Json:
    told = {"step": 0, "epoch": 0.0, "split": "validation", "accuracy": accuracy, "loss": 0.1}
    return {"event": "Evaluated", "phase": phase, **told}


EVENTS = [
    {"event": "PhaseStarted", "phase": "teacher", "step": 0, "steps": 0},
    evaluated("teacher", 0.981),
    {"event": "PhaseStarted", "phase": "blocks", "step": 0, "steps": 8},
    *trained("stem", "separable", 0.9, 0.612),
    *trained("body.0", "separable", 0.7, 0.456),
    *trained("body.0", "low_rank-2", 0.5, 0.234),
]


def with_blocks(folder: Path, *, chosen: bool = True, names: tuple[str, str] = ("stem", "body.0")) -> Path:
    """What the runner leaves of two blocks in a run's folder."""
    blocks = folder / "blocks"
    blocks.mkdir()
    forms = [{"name": name, "in_shape": [3, 8, 8], "out_shape": [16, 8, 8]} for name in names]
    offered = {"separable": cost(0.1), "low_rank-2": cost(0.05)}
    options = [{"keep": cost(0.3), "separable": cost(0.2)}, {"keep": cost(0.7)} | offered]
    (blocks / "costs.json").write_text(json.dumps({"options": options, "whole": WHOLE, "blocks": forms}))
    (blocks / "diverged.json").write_text(json.dumps([[names[1], "separable", ["it exploded at step 7"]]]))
    if chosen:
        score = {"harm": 0.0345, "accuracy": 0.955}
        front = [mix(["separable", "low_rank-2"], 0.25, 0.31), mix(["keep", "keep"], 1.0, 0.977)]
        choice = {
            "limits": {"params": 10_000.0, "latency_ms": 0.8},
            "candidates": [mix(["keep", "low_rank-2"], 0.24, 0.942), mix(["separable", "keep"], 0.9, 0.93)],
            "fronts": {"params": front, "macs": front, "latency_ms": front},
            "alone": [{"separable": score}, {"low_rank-2": score}],
        }
        (blocks / "choice.json").write_text(json.dumps(choice))
        stages = {"assembled": {"accuracy": 0.9413, "loss": 0.2}, "calibrated": {"accuracy": 0.9524, "loss": 0.2}}
        (blocks / "stages.json").write_text(json.dumps(stages))
    return folder


@pytest.fixture
def folder(make_run: MakeRun, result: Json, tmp_path: Path) -> Path:
    """A finished run."""
    found = with_blocks(make_run(tmp_path / "run", None, [*EVENTS, evaluated("student", 0.9711)], recipe=RECIPE))
    told = described(found, read_events(found / "events.jsonl"))
    (found / "result.json").write_text(json.dumps(result | {"method": "blockwise", "blockwise": told}))
    return found


def test_all_of_a_run_of_blocks_is_told(folder: Path) -> None:
    """Blocks, choices, errors, harm, stages, fronts, stories: each is on the page, in a person's units."""
    page = write_report(folder).read_text()
    outline = Outline(page)
    words = outline.words()
    told = (
        "The teacher was cut into 2 blocks, for which 3 replacements were offered.",
        "The chosen mix replaces 1 and keeps 1, for at most 25 % of the parameters (10.0 k) and 0.8 ms a sample.",
        "low rank, 2", "0.234", "0.0345", "95.5 %", "2.00 k", "body.0: separable", "it exploded at step 7", "kept",
        "The chosen replacements ended with errors of 0.234 to 0.234.",
        "The student got 95.2 % right before fine-tuning, 97.1 % after it.",
        "Put together, the chosen mix gets 94.2 % right with 24 % of the parameters.", "The front by latency",
        "separable, keep",
        "trained from initial weights, for as many epochs as blocks, calibration and student together,",
    )  # fmt: skip
    assert [each for each in told if each not in words] == []
    ids = {str(svg["aria-label"])[:20] for svg in outline.svgs}
    assert {"Errors of replacemen", "Accuracy on the vali", "Accuracy against cos"} <= ids
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert not re.findall(r"#(?:[0-9a-f]{6})\b", "".join(figures))
    assert {re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0] for svg in figures} == {"331.2"}
    assert min(float(each) for svg in figures for each in re.findall(r"font-size: ([\d.]+)px", svg)) >= 11
    assert "mathdefault" not in page and len(outline.ids) == len(set(outline.ids))


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ({"arch": "live"}, '"run", student_module)'),
        ({"arch": "blockwise", "options": {"of": {"arch": "live"}}}, '"run", teacher)'),
        ({"arch": "blockwise", "options": {"of": {"arch": "vgg"}}}, '"run")'),
    ],
)
def test_how_to_load_what_was_handed_over_from_python(folder: Path, model: Json, wanted: str) -> None:
    """The lines that load the student name the module that is needed; no command is shown that could not work."""
    (folder / "student.json").write_text(json.dumps({"model": model}))
    words = Outline(write_report(folder).read_text()).words()
    assert f"stillhouse.load_student({wanted}" in words
    assert ("stillhouse evaluate" in words) == ("module" not in wanted and "teacher" not in wanted)


def test_a_run_that_still_trains_blocks_shows_what_there_is(make_run: MakeRun, tmp_path: Path) -> None:
    """Without a choice the curves are drawn and the table is there; nothing is said to be chosen."""
    folder = with_blocks(make_run(tmp_path / "run", None, EVENTS, recipe=RECIPE), chosen=False)
    words = Outline(write_report(folder).read_text()).words()
    assert "None was chosen yet." in words
    assert "The replacements ended with errors of 0.234 to 0.612." in words
    assert "Put together" not in words and "thick line" not in words


def test_a_run_that_only_measured_costs(make_run: MakeRun, tmp_path: Path) -> None:
    """Killed before the first epoch of the blocks, or with no figures of errors that are finite, it has a page."""
    for name, events in (("none", []), ("nan", trained("stem", "separable", float("nan")))):
        folder = with_blocks(make_run(tmp_path / name, None, events, recipe=RECIPE), chosen=False)
        words = Outline(write_report(folder).read_text()).words()
        assert "Block by block" in words and "ended with errors" not in words


def test_a_run_of_no_blocks_has_no_such_section(page: str) -> None:
    """The page of a distilled student says nothing of blocks."""
    assert "Block by block" not in page


def test_many_blocks_make_no_endless_figure(make_run: MakeRun, tmp_path: Path) -> None:
    """Of a hundred blocks the first have a panel; the rest is in the table, and that is said."""
    folder = make_run(tmp_path / "run", None, [], recipe=RECIPE)
    with_blocks(folder, chosen=False)
    names = [f"layer{number}" for number in range(100)]
    events = [event for name in names for event in trained(name, "separable", 0.5, 0.25)]
    (folder / "events.jsonl").write_text("".join(json.dumps({"time": 1.0, **event}) + "\n" for event in events))
    costs = json.loads((folder / "blocks" / "costs.json").read_text())
    forms = [{**costs["blocks"][0], "name": name} for name in names]
    costs |= {"blocks": forms, "options": [costs["options"][0]] * len(names)}
    (folder / "blocks" / "costs.json").write_text(json.dumps(costs))
    page = write_report(folder).read_text()
    assert f"{100 - PANELS_MAX} more blocks are in the table alone." in page
    drawn = re.findall(r"layer\d+", "".join(re.findall(r"<text.*?</text>", page, re.DOTALL)))
    assert len(set(drawn)) == PANELS_MAX


def test_hostile_names_are_escaped(make_run: MakeRun, tmp_path: Path) -> None:
    """Markup in the names of blocks and in stories is shown, not obeyed."""
    evil = '"><script>alert(1)</script>$x_1$'
    events = trained(evil, "separable", 0.5)
    folder = with_blocks(make_run(tmp_path / "run", None, events, recipe=RECIPE), names=("stem", evil))
    page = write_report(folder).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert write_report(folder).read_text() == page

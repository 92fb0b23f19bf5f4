"""What a person sees while a run works, in a terminal and elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stillhouse.cli.progress import Bars, Lines
from stillhouse.foundation import block_events as b
from stillhouse.foundation import events as e

GIVEN = [
    e.PhaseStarted("teacher"),
    e.Evaluated("teacher", 0, 0.0, "validation", 0.9731, 0.1),
    e.PhaseFinished("teacher", 0.0, None, "unavailable: nothing was trained"),
]
TRAINED = [
    e.PhaseStarted("student", 0, 10, 8),
    e.Progress("student", 10, 1.0, {"total": 0.5}, 0.1, {"step": 2.0}, 80),
    e.Evaluated("student", 10, 1.0, "validation", 0.9, 0.2),
    e.PhaseFinished("student", 2.0, None, "unavailable"),
]


def shown(view: type[Bars] | type[Lines], *events: e.Event) -> str:
    """All that was printed, bars as they stand at the end."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    seen: Any = view(console, Path("runs/of-nobody"))
    for event in events:
        seen.hear(event)
    if isinstance(seen, Bars):
        console.print(seen.progress.get_renderable())
    return out.getvalue()


@pytest.mark.parametrize("view", [Bars, Lines])
def test_a_given_teacher_takes_no_steps(view: type[Bars] | type[Lines]) -> None:
    """A teacher that is given is said to be so, with its accuracy in one line: no bar, no steps, no time."""
    (line,) = shown(view, *GIVEN).split("\n")[:-1]
    assert line.strip() == "teacher: as it stands, validation accuracy 97.31 %"


@pytest.mark.parametrize("view", [Bars, Lines])
def test_a_store_is_told_by_what_the_run_wants(view: type[Bars] | type[Lines]) -> None:
    """The store's line counts the run's own views, not every row that the store could hold."""
    words = shown(view, e.StoreOpened("labels/3f2a", 4, 360_000, "not read: labels/old", 1295, 5180))
    assert "labels/3f2a (4 views of each sample, 0.36 MB when all are answered)" in words
    assert "holds 1,295 of the 5,180 answers that this run wants" in words and "not read: labels/old" in words


@pytest.mark.parametrize("view", [Bars, Lines])
def test_a_training_is_told(view: type[Bars] | type[Lines]) -> None:
    """A training's steps, speed and accuracy are shown, behind a given teacher, too."""
    words = shown(view, *GIVEN, *TRAINED)
    steps = "10/10" if view is Bars else "from step 0 to 10"
    for word in (steps, "40 samples/s", "validation accuracy 90.00 %" if view is Lines else "validation 90.0 %"):
        assert word in words, words


@pytest.mark.parametrize("view", [Bars, Lines])
@pytest.mark.parametrize("kind", ["left", "refused", "scaled"])
def test_words_of_workers_are_printed_as_they_are(view: type[Bars] | type[Lines], kind: str) -> None:
    """Brackets and colons in what a worker, a warning or a student says are no markup, and it moves no cursor."""
    want = "exit code 1: [enforce fail at alloc.cpp:117] :warning: could not open [/data/train] ]0;xcaf"
    said = want.replace("]0;", "\x1b[2J\x1b]0;").replace("xcaf", "x\x07caf\udce9")
    events = [
        e.FleetChanged(kind, "w[/1]", said, {}, 0.0),
        e.Warned(said),
        e.GroupChanged("student", "lost", 2, 0, said),
    ]
    words = shown(view, *events)
    assert words.count(want) == len(events) and "\x1b" not in words and "\x07" not in words
    words = shown(view, e.PhaseStarted("[/a]", 0, 10, 8), e.CheckpointRefused("[/a]", "step-3", said))
    assert want in words and "[/a]" in words


@pytest.mark.parametrize("view", [Bars, Lines])
def test_who_is_let_go_is_named(view: type[Bars] | type[Lines]) -> None:
    """A line about one teacher says which, one about all of them has no name."""
    words = shown(view, e.FleetChanged("scaled", "local-2", "not needed", {}, 0.0))
    assert "teacher local-2 is let go: not needed" in words
    assert "teachers: 1 started" in shown(view, e.FleetChanged("scaled", "", "1 started", {}, 0.0))


@pytest.mark.parametrize("view", [Bars, Lines])
def test_blocks_are_told(view: type[Bars] | type[Lines]) -> None:
    """A blockwise run says what it may cost, the mean error of its replacements, and how good the student is when."""
    whole = {"params": 95_890, "latency_ms": 0.4321}
    words = shown(
        view,
        b.BlocksOffered(6, 31, whole, {"params": 23_972.5, "latency_ms": 0.2}),
        e.PhaseStarted("blocks", 0, 68, 64),
        e.Progress("blocks", 34, 2.0, {"total": 0.25}, 0.1, {"step": 2.0}, 80),
        e.PhaseFinished("blocks", 2.0, None, "unavailable"),
        e.PhaseStarted("choose", 0, 59),
        e.Progress("choose", 59, 0.0, {}, 0.0, {"evaluate": 1.0}, 0),
        e.PhaseFinished("choose", 2.0, None, "unavailable"),
        e.Evaluated("assembled", 0, 0.0, "validation", 0.9552, 0.1),
        *TRAINED,
        e.Evaluated("calibrated", 0, 0.0, "validation", 0.9602, 0.1),
    )
    assert "blocks: 6 of them, 31 replacements; the student may have at most 23,972 of 95,890 parameters and " in words
    assert "0.2 of 0.432 ms a sample" in words
    assert "assembled: the chosen blocks put together, validation accuracy 95.52 %" in words
    assert "calibrated: blocks used to each other, validation accuracy 96.02 %" in words
    if view is Bars:
        assert "mean error 0.250" in words and "59/59" in words
    else:
        assert "choose: done in 2.0 s\n" in words


@pytest.mark.parametrize("view", [Bars, Lines])
def test_workers_that_train_blocks_are_told_of(view: type[Bars] | type[Lines]) -> None:
    """Who has which blocks, how activations come there, what was promised and came of it, and who was lost."""
    keys = (("stem", "low_rank-2"), ("stage1", "separable"))
    one, other = b.BlockWorker("here", 11, "stem", "stage1", keys), b.BlockWorker("here", 12, "head", "head", keys[:1])
    told = (0.0312, 0.95, 1e9, 0.001)
    words = shown(
        view,
        b.BlockWorkersAwaited("blocks", 2),
        b.BlocksPlanned("blocks", 0, True, *told, (one, other)),
        b.BlocksPlanned("blocks", 8, False, *told, (one, other)),
        b.BlockWorkersLost("blocks", 2, 9, "worker 2 of 2: killed by SIGKILL"),
        b.PlanMeasured("blocks", 0.0312, 0.0333),
    ).replace("\n", " ")
    assert "blocks: 2 workers start; each loads the teacher and times a few steps" in words
    workers = "stem to stage1 (process 11 on here, 2 to train); head (process 12 on here, 1 to train)"
    assert f"blocks: {workers}; activations are handed on; expected: 31.2 ms a step, efficiency 0.95" in words
    assert "each runs the teacher from the first block on; expected" in words
    assert "blocks, step 9: worker 2 of 2: killed by SIGKILL; all begin again from the newest checkpoints" in words
    assert "blocks: a step of all, 31.2 ms were planned, 33.3 ms measured" in words


@pytest.mark.parametrize("view", [Lines, Bars])
def test_what_was_chosen_is_told(view: Any) -> None:
    """What stands for which block, how many stay, and what share of the teacher's costs that is."""
    shares = {"params": 0.245, "latency_ms": 1.2}
    words = shown(view, b.BlocksChosen(("stem", "stage1", "head"), ("keep", "low_rank-2", "keep"), shares))
    told = "chosen: stage1 low_rank-2; 2 stay the teacher's; 24 % of its parameters, 120 % of its time"
    assert told in words.replace("\n", " ")

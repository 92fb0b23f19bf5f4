"""Trials trained by several processes: each as one process trains it, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from stillhouse.foundation.errors import FleetError, Interrupted, RecipeError
from stillhouse.foundation.events import Event, Progress
from stillhouse.foundation.search_events import TrialEnded, TrialLent, TrialReached, TrialWorkerCame, TrialWorkerLost
from stillhouse.recipe.load import dump, validate
from stillhouse.recipe.recipe import Recipe, as_dict
from stillhouse.runner.run import resume, run
from stillhouse.runner.search import hunt, workers
from stillhouse.runner.shares import pack_share

from .lessons import told
from .test_runner_kill import finish, start, wait_for
from .test_runner_kill import told as told_in
from .test_runner_search import TRAIN, recipe


def drawn(count: int, **search: Any) -> Recipe:
    """A search whose points don't depend on what was known before; few of its trials go on."""
    sought = {"random": 1.0, "reduction": 3, "trials": 6, **search}
    return recipe(sought, fleet={"trial_workers": count}, checkpoint={"every_s": 0})


def values(result: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Of each trial at each rung."""
    return {each["trial"]: each["rungs"] for each in result["search"]["trials"]}


def agree(found: dict[str, Any], alone: dict[str, Any]) -> None:
    """Every value that both know is the same, and of every trial both know one at least."""
    ours, theirs = values(found), values(alone)
    assert ours.keys() == theirs.keys()
    assert all(
        ours[trial][rung] == theirs[trial][rung] for trial in ours for rung in ours[trial].keys() & theirs[trial]
    )
    assert all(theirs[trial].keys() & ours[trial].keys() for trial in theirs)


def processes() -> list[int]:
    """Process ids of the workers that this process started."""
    command = ["pgrep", "-P", str(os.getpid()), "-f", "runner.search.worker"]
    return sorted(map(int, subprocess.run(command, capture_output=True, text=True).stdout.split()))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The search by one process."""
    return run(drawn(1), tmp_path_factory.mktemp("alone") / "run")


def test_a_trial_is_the_same_whoever_trains_it(tmp_path: Path, alone: dict[str, Any]) -> None:
    """To the last bit, and the workers end with the search; both had work."""
    events: list[Event] = []
    found = run(drawn(2), tmp_path / "run", [events.append])
    agree(found, alone)
    assert {each.worker for each in told(events, TrialWorkerCame)} == {"trial-worker-1", "trial-worker-2"}
    assert len({each.worker for each in told(events, TrialLent)}) == 2
    assert not told(events, TrialWorkerLost) and not processes()
    assert not list((tmp_path / "run" / "checkpoints").rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("how", "why"),
    [(signal.SIGKILL, "killed by SIGKILL"), pytest.param(signal.SIGSTOP, "silent", marks=pytest.mark.slow)],
)
def test_the_trial_of_a_lost_worker_goes_on(
    tmp_path: Path, alone: dict[str, Any], how: signal.Signals, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of it: by another worker, or by the one that is started in its place, from its checkpoint."""
    if how is signal.SIGSTOP:  # else nobody has to wait, and a busy machine may be silent for a while
        monkeypatch.setattr("stillhouse.runner.group.SILENT_S", 3.0)
        monkeypatch.setattr("stillhouse.runner.group._FIRST_S", 3.0)  # for what is compiled, else a quarter of an hour
    events: list[Event] = []
    hit: list[int] = []

    def hear(event: Event) -> None:
        events.append(event)
        lent = told(events, TrialLent)
        if isinstance(event, Progress) and event.phase == "search" and len(lent) >= 4 and not hit:
            busy = lent[-1].worker
            hit.append(next(each.process_id for each in told(events, TrialWorkerCame) if each.worker == busy))
            os.kill(hit[0], how)

    found = run(drawn(2), tmp_path / "run", [hear])
    agree(found, alone)
    (lost,) = told(events, TrialWorkerLost)
    assert why in lost.why
    assert lost.trial is None or sum(each.trial == lost.trial for each in told(events, TrialLent)) >= 2
    assert not processes()


@pytest.mark.slow
def test_a_worker_that_freezes_before_it_begins_is_replaced(
    tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came and never says how it sees the data: it is ended like one that falls silent later."""
    monkeypatch.setattr("stillhouse.runner.group._FIRST_S", 6.0)  # a busy machine's others begin in less
    events: list[Event] = []

    def freeze(event: Event) -> None:
        events.append(event)
        if isinstance(event, TrialWorkerCame) and len(told(events, TrialWorkerCame)) == 1:
            os.kill(event.process_id, signal.SIGSTOP)
        elif isinstance(event, TrialReached):
            time.sleep(1.0)  # the search is not over before it is noticed

    agree(run(drawn(2), tmp_path / "run", [freeze]), alone)
    assert "silent" in told(events, TrialWorkerLost)[0].why and not processes()


def test_data_that_a_worker_cannot_see_is_sent(
    tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels go along, and the run looks at the weights; the values are the same."""
    sent: list[bool] = []

    def share(*given: Any, pixels: bool) -> Any:
        sent.append(pixels)
        return pack_share(*given, pixels=pixels)

    monkeypatch.setattr(workers, "sight_job", blinding(workers.sight_job))
    monkeypatch.setattr(workers, "pack_share", share)
    agree(run(drawn(2), tmp_path / "run"), alone)
    assert sent and all(sent)


def test_what_the_run_cannot_look_at_for_a_worker_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of which every evaluation runs out of memory ends with that; the others go on."""
    made = workers.course_of

    def exhausted(_: Any) -> Any:
        raise torch.OutOfMemoryError("no memory left")

    def course_of(*given: Any) -> Any:
        found = made(*given)
        return replace(found, validate=exhausted) if found.phase.startswith("trial-2-") else found

    monkeypatch.setattr(workers, "sight_job", blinding(workers.sight_job))
    monkeypatch.setattr(workers, "course_of", course_of)
    events: list[Event] = []
    found = run(drawn(2), tmp_path / "run", [events.append])
    assert [(each.trial, each.why) for each in told(events, TrialEnded) if each.failed] == [(2, "no memory left")]
    assert len({each.worker for each in told(events, TrialLent) if each.trial == 2}) == 2
    assert sum(bool(each["rungs"]) for each in found["search"]["trials"]) == 6  # one more was tried


def blinding(job: Callable[..., Any]) -> Callable[..., Any]:
    """Jobs whose data nobody else finds."""

    def made(materials: Any) -> Any:
        found = job(materials)
        return type(found)(**{**vars(found), "samples": None, "source_digest": "another"})

    return made


def test_who_kills_its_workers_cannot_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial whose workers die again and again fails with its story; the others go on."""
    monkeypatch.setattr(workers, "DEATHS_MAX", 1)
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)
        if isinstance(event, TrialLent) and event.trial == 2:
            came = [each for each in told(events, TrialWorkerCame) if each.worker == event.worker]
            os.kill(came[-1].process_id, signal.SIGKILL)

    found = run(drawn(2), tmp_path / "run", [hear])
    failed = {each.trial: each.why for each in told(events, TrialEnded) if "died" in each.why}
    assert failed.keys() == {2} and "its workers died 2 times" in failed[2] and "SIGKILL" in failed[2]
    assert sum(bool(each["rungs"]) for each in found["search"]["trials"]) == 6


_PICKY = """
import os, sys
from pathlib import Path
from torch import nn

def small(width):
    if "stillhouse.runner.search.worker" in sys.orig_argv:
        first = Path(__file__).with_suffix(".first")
        if not first.exists():
            first.write_text(str(os.getpid()))
        if first.read_text() == str(os.getpid()) or EVERYBODY:
            raise RuntimeError("a library is missing here")
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.LazyLinear(10))
"""


@pytest.mark.parametrize("everybody", [False, True])
def test_what_one_place_refuses_another_trains(tmp_path: Path, everybody: bool) -> None:
    """Where a library is missing trials fail at once; they go elsewhere, and only what all refuse can't be trained."""
    (tmp_path / "small.py").write_text(_PICKY.replace("EVERYBODY", str(everybody)))
    model = {"arch": f"{tmp_path}/small.py:small", "options": {"width": 4}}
    space = {"student.train.optimizer.learning_rate": {"low": 0.01, "high": 0.2}}
    sought = {**as_dict(drawn(2, space=space, members=1, finalists=1)), "student": {"model": model, "train": TRAIN}}
    events: list[Event] = []
    if everybody:
        with pytest.raises(RecipeError, match=r"6 trials in a row could not be trained.*a library is missing here"):
            run(
                validate({**sought, "search": {**sought["search"], "failures_max": 6}}),
                tmp_path / "run",
                [events.append],
            )
        lent = [each.trial for each in told(events, TrialLent)]
        counts = [lent.count(trial) for trial in sorted(set(lent))]
        assert counts[:4] == [2] * 4 and max(counts) == 2, "each trial by each worker"
        return
    under_way: set[int] = set()

    def hear(event: Event) -> None:
        events.append(event)
        if isinstance(event, TrialLent):
            under_way.add(event.trial)
            assert len(under_way) <= 3, "who refuses all is not given all"
        elif isinstance(event, TrialReached):
            under_way.discard(event.trial)

    found = run(validate(sought), tmp_path / "run", [hear])
    assert not told(events, TrialEnded) and all(each["rungs"] for each in found["search"]["trials"])
    assert len({each.worker for each in told(events, TrialLent)}) == 2


def test_workers_that_never_begin_end_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what they said last."""
    monkeypatch.setattr(hunt, "WORKERS", hunt.WORKERS._replace(module="stillhouse.no_such_module"))
    with pytest.raises(FleetError, match=r"die before they begin: exit code 1: .*no_such_module"):
        run(drawn(2), tmp_path / "run")
    assert not processes()


def test_a_signal_ends_all_and_nothing_is_lost(tmp_path: Path, alone: dict[str, Any]) -> None:
    """Every worker's checkpoint is there; the search goes on from it, with another number of workers too."""
    folder, asked = tmp_path / "run", list[Event]()

    def interrupt(event: Event) -> None:
        asked.append(event)
        if isinstance(event, TrialReached) and len(told(asked, TrialReached)) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped"):
        run(drawn(2), folder, [interrupt])
    assert not processes()
    agree(resume(folder, fleet=["fleet.trial_workers=3"]), alone)


@pytest.mark.slow
def test_sigkill_of_the_run(tmp_path: Path, alone: dict[str, Any]) -> None:
    """Its workers end with it, and the search goes on; no trial is left running."""
    path, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(dump(drawn(2)))
    for number in (2, 5, 100):
        words = ["resume", folder] if (folder / "recipe.yaml").exists() else ["run", path, "--out", folder]
        process = start(*words)
        if wait_for(process, lambda number=number: told_in(folder, "TrialReached") >= number):  # type: ignore[misc]
            time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
        code, said = finish(process)
        assert code in (0, -signal.SIGKILL), said
    agree(json.loads((folder / "result.json").read_text()), alone)
    theirs = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'search.db'}")
    assert TrialState.RUNNING not in [each.state for each in theirs.trials]


def test_only_a_search_has_them() -> None:
    """Others are told what the key is for."""
    with pytest.raises(RecipeError, match=r"fleet.trial_workers: .*no section 'search'"):
        validate({**as_dict(drawn(2)), "search": None})

"""``teach``: the teacher's part alone fills everything, however often it is stopped; the students then only read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import refused, shell

from stillhouse.cli.main import main
from stillhouse.foundation.errors import Interrupted, RecipeError, RunDirError, StillhouseError, StorageError
from stillhouse.foundation.events import Event, PhaseFinished, PhaseStarted, Progress, StoreOpened
from stillhouse.foundation.files import read_json
from stillhouse.foundation.history import read_events
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import resume, run, teach
from stillhouse.runner.rundir import RunDir
from stillhouse.store.label_store import LabelStore, open_folder

from .lessons import SEEN, SPLIT, Asked, answered, counts, digest, lesson, only_store, told, weights

SOURCES = ["stored", "auto", "offline"]


class Crash(BaseException):
    """The end of a process, as far as one process can play it."""


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


def taught(recipe: Recipe, folder: Path, *listeners: Any) -> dict[str, Any]:
    """Begin a run with its teaching, as the command line does."""
    with RunDir(folder).begun(recipe):
        return teach(folder, listeners)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the run that was never taught beforehand."""
    root = tmp_path_factory.mktemp("plain")
    return weights(run(lesson(root / "none", "inline"), root / "run"))


@pytest.mark.parametrize("source", SOURCES)
def test_students_read_what_was_taught(
    tmp_path: Path, plain: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teaching answers each view of the training split once; the students ask nothing, and end in the same bits."""
    folder = tmp_path / "run"
    with Asked() as asked:
        store = taught(lesson(tmp_path / "store", source, control={"seeds": 2}), folder)
    assert sorted(asked.keys) == sorted(set(asked.keys)) and asked.views == 2 * SPLIT
    assert len(asked.groups) == -(-2 * SPLIT // 128)  # full groups, but for the last
    assert store["folder"] == str(only_store(tmp_path / "store")) and store["bytes_on_disk"] > 0
    assert answered(only_store(tmp_path / "store")) == 2 * SPLIT
    assert not (folder / "result.json").exists() and not list((folder / "weights").glob("student*"))
    monkeypatch.setattr("stillhouse.runner.teaching.Teacher", None)
    result = resume(folder)
    assert weights(result) == plain
    for phase in ("student", "student-1"):
        assert counts(folder, phase) == {"hits": SEEN, "misses": 0}
    assert result["store"]["misses"] == 2 * SPLIT and result["phase_s"]["teach"] >= 0


def test_teaching_is_told(tmp_path: Path) -> None:
    """The phase begins at what is there, its progress adds up to what was asked, and it ends at its last step."""
    events: list[Event] = []
    taught(lesson(tmp_path / "store"), tmp_path / "run", events.append)
    (started,) = [each for each in told(events, PhaseStarted) if each.phase == "teach"]
    assert (started.step, started.steps, started.batch_size) == (0, -(-2 * SPLIT // 128), 128)
    progress = told(events, Progress)
    assert sum(each.samples for each in progress) == sum(each.counts["misses"] for each in progress) == 2 * SPLIT
    assert [each.phase for each in told(events, PhaseFinished)][-1] == "teach"
    teach(tmp_path / "run", [events.append])
    assert [(each.answered, each.wanted) for each in told(events, StoreOpened)] == [
        (0, 2 * SPLIT), (2 * SPLIT, 2 * SPLIT),
    ]  # fmt: skip


def test_teaching_again_asks_nothing(tmp_path: Path, plain: str) -> None:
    """A second time, also by another run and after the run has ended, nothing is asked and nothing is harmed."""
    taught(lesson(tmp_path / "store"), tmp_path / "run")
    with Asked() as asked:
        teach(tmp_path / "run")
        taught(lesson(tmp_path / "store", train={"batch_size": 50}), tmp_path / "other")
        resume(tmp_path / "run")
        teach(tmp_path / "run")
    assert asked.views == 0
    assert resume(tmp_path / "run") == read_json(tmp_path / "run" / "result.json")
    assert digest(tmp_path / "run") == plain


@pytest.mark.parametrize("place", [1, 7, 20])
def test_only_the_rest_is_asked(tmp_path: Path, plain: str, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taught again after a crash in the middle, exactly the views that did not get to the disk are asked."""
    calls, write = 0, LabelStore.write

    def deadly(self: LabelStore, *rows: Any) -> int:
        nonlocal calls
        calls += 1
        return write(self, *rows) if calls <= place else 0  # what a killed process had in its queue

    with monkeypatch.context() as patched:
        patched.setattr(LabelStore, "write", deadly)
        taught(lesson(tmp_path / "store", "offline"), tmp_path / "run")
    there = answered(only_store(tmp_path / "store"))
    assert 0 < there < 2 * SPLIT
    events: list[Event] = []
    with Asked() as asked:
        teach(tmp_path / "run", [events.append])
    assert asked.views == 2 * SPLIT - there == sum(each.samples for each in told(events, Progress))
    assert told(events, PhaseStarted)[-1].step == there // 128
    assert weights(resume(tmp_path / "run")) == plain


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_politely(tmp_path: Path, plain: str, number: signal.Signals) -> None:
    """A signal ends the teaching after a batch, in words; what was answered stays, and the rest is asked."""

    def listener(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "teach":
            os.kill(os.getpid(), number)

    with Asked() as asked:
        with pytest.raises(Interrupted, match=r"^stopped while the teacher answered") as caught:
            taught(lesson(tmp_path / "store"), tmp_path / "run", listener)
        assert caught.value.exit_code == 128 + number and 0 < asked.views < 2 * SPLIT
        first = asked.views
        teach(tmp_path / "run")
    assert asked.views == 2 * SPLIT and first <= 128 * 3
    assert weights(resume(tmp_path / "run")) == plain


@pytest.mark.parametrize("named", ["relative", "edited"])
def test_a_run_moves_with_its_labels(tmp_path: Path, plain: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taught here, moved with its label store, resumed there: all answers are read, and the student is the same.

    A relative store.path moves with the folder one stands in; an absolute one is changed in the run's recipe.yaml.
    """
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    monkeypatch.chdir(here)
    taught(lesson(Path("labels") if named == "relative" else here / "labels"), Path("run"))
    monkeypatch.chdir(tmp_path)
    here.rename(there)
    monkeypatch.chdir(there)
    if named == "edited":
        recipe = Path("run/recipe.yaml")
        recipe.write_text(recipe.read_text().replace(str(here / "labels"), str(there / "labels")))
    with Asked() as asked:
        result = resume(Path("run"))
    assert asked.views == 0 and result["store"]["hits"] == SEEN and weights(result) == plain
    assert Path(result["store"]["folder"]).resolve() == only_store(there / "labels") and not here.exists()


def test_offline_students_wait_for_nothing(tmp_path: Path, plain: str) -> None:
    """``source: offline`` asks everything before the first step of any student."""
    events: list[Event] = []
    result = run(lesson(tmp_path / "store", "offline"), tmp_path / "run", [events.append])
    phases = [each.phase for each in events if isinstance(each, PhaseStarted | PhaseFinished)]
    assert phases[-4:] == ["teach", "teach", "student", "student"]
    assert counts(tmp_path / "run", "student") == {"hits": SEEN, "misses": 0}
    assert counts(tmp_path / "run", "teach") == {"hits": 0, "misses": 2 * SPLIT}
    assert weights(result) == plain


def test_a_teacher_is_trained_first(tmp_path: Path) -> None:
    """A teacher that the recipe trains is trained once, by the teaching; the run goes on behind it."""
    teacher = {"model": {"arch": "mlp"}, "train": {"epochs": 1, "warmup_epochs": 0}}
    events: list[Event] = []
    taught(lesson(tmp_path / "store", teacher=teacher), tmp_path / "run", events.append)
    assert [each.phase for each in told(events, PhaseFinished)] == ["teacher", "teach"]
    result = resume(tmp_path / "run", [events.append])
    assert [each.phase for each in told(events, PhaseStarted)] == ["teacher", "teach", "student"]
    assert weights(result) == weights(run(lesson(tmp_path / "x", "inline", teacher=teacher), tmp_path / "plain"))


class TestRefusals:
    """What ``teach`` can't do is said in words, and leaves nothing that was not there."""

    def test_inline(self, tmp_path: Path) -> None:
        """A recipe whose answers are kept nowhere is refused, a run in the middle as well as a new one."""
        with pytest.raises(RecipeError, match=r"knowledge\.source: inline keeps no answers"):
            taught(lesson(tmp_path / "store", "inline"), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_nothing_asked(self, tmp_path: Path) -> None:
        """An objective that asks nothing is refused before anything is trained."""
        teacher = {"model": {"arch": "mlp"}, "train": {"epochs": 1, "warmup_epochs": 0}}
        objective = {"cross_entropy": 1.0, "kd": {"weight": 0}}
        with pytest.raises(RecipeError, match=r"asks nothing of a teacher.*objective\.kd"):
            taught(lesson(tmp_path / "store", teacher=teacher, objective=objective), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("source", SOURCES)
    def test_no_room(self, tmp_path: Path, source: str) -> None:
        """Where bytes_max has no room for everything, teaching says so instead of asking in vain, and how to go on."""
        recipe = lesson(tmp_path / "store", source, store={"path": str(tmp_path / "store"), "bytes_max": 100_000})
        with Asked() as asked, pytest.raises(StillhouseError, match=r"store\.bytes_max.*(raise it|raised)"):
            taught(recipe, tmp_path / "run")
        assert asked.views == 0

    def test_no_room_offline(self, tmp_path: Path) -> None:
        """So does a run with ``source: offline``, before any training."""
        recipe = lesson(tmp_path / "store", "offline", store={"path": str(tmp_path / "store"), "bytes_max": 100_000})
        with pytest.raises(StillhouseError, match=r"store\.bytes_max"):
            run(recipe, tmp_path / "run")
        assert not list(tmp_path.rglob("*.ckpt"))

    @pytest.mark.parametrize("source", SOURCES)
    def test_a_disk_that_refuses(
        self, tmp_path: Path, plain: str, source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Teaching that can't write ends with the disk's reason; once there is room it goes on."""

        def full(*arguments: Any) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("stillhouse.store.view_files.os.pwrite", full)
            with pytest.raises(StorageError, match="No space left on device"):
                taught(lesson(tmp_path / "store", source), tmp_path / "run")
        teach(tmp_path / "run")
        assert weights(resume(tmp_path / "run")) == plain

    def test_no_folder(self, tmp_path: Path) -> None:
        """Where no store can be made it is said, with the key of the recipe."""
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(StillhouseError, match=r"store\.path"):
            taught(lesson(tmp_path / "file" / "labels"), tmp_path / "run")

    def test_a_read_only_folder(self, tmp_path: Path) -> None:
        """A folder of stores that can't be written to is refused by ``teach`` unless all is answered there already."""
        labels = tmp_path / "store"
        taught(lesson(labels, train={"epochs": 1, "warmup_epochs": 0}), tmp_path / "first")
        if subprocess.run(["mount", "--bind", labels, labels], capture_output=True, check=False).returncode:
            pytest.skip("only root may make a folder read-only for everybody")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", labels], check=True)
            taught(lesson(labels, train={"epochs": 1, "warmup_epochs": 0, "batch_size": 70}), tmp_path / "second")
            result = resume(tmp_path / "second")
            assert counts(tmp_path / "second", "student")["misses"] == 0 and result["warnings"] == []
            with pytest.raises(StillhouseError, match="Read-only file system"):
                taught(lesson(labels), tmp_path / "third")
        finally:
            subprocess.run(["umount", labels], check=True)

    def test_no_run_and_a_run_in_use(self, tmp_path: Path) -> None:
        """A folder without a run, and one that is being worked on, are refused by name."""
        with pytest.raises(RunDirError, match="holds no run"):
            teach(tmp_path)
        recipe, errors = lesson(tmp_path / "store"), []

        def listener(event: Event) -> None:
            if isinstance(event, PhaseStarted) and event.phase == "teach":
                with pytest.raises(RunDirError, match="in use by process") as caught:
                    teach(tmp_path / "run")
                errors.append(caught.value)

        taught(recipe, tmp_path / "run", listener)
        assert len(errors) == 1


class TestCommand:
    """The verb itself."""

    @pytest.fixture
    def call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        """The command line in this process, in a folder of its own, with a recipe."""
        (tmp_path / "tiny.yaml").write_text(dump(lesson(tmp_path / "store")))
        monkeypatch.chdir(tmp_path)

        def said(*words: str) -> tuple[int, str]:
            monkeypatch.setattr(sys, "argv", ["stillhouse", *words])
            code = 0
            try:
                main()
            except SystemExit as stop:
                code = int(stop.code or 0)
            out, err = capsys.readouterr()
            return code, " ".join((out + err).split())

        return said

    def test_teach_and_resume(self, tmp_path: Path, call: Any, plain: str) -> None:
        """'teach RECIPE' makes runs/NAME and names the next command, which needs no teacher any more."""
        code, words = call("teach", "tiny.yaml")
        assert code == 0 and "all answers of this run are in" in words and words.endswith("stillhouse resume runs/tiny")
        assert call("teach", "runs/tiny")[0] == 0
        assert call("teach", "tiny.yaml")[1].endswith("stillhouse resume runs/tiny-2")
        code, words = call("teach", "tiny.yaml", "--out", "runs/tiny")
        assert code == 2 and "stillhouse resume runs/tiny" in words  # its teaching is done
        for folder in ("runs/tiny", "runs/tiny-2"):
            resume(Path(folder))
            assert digest(tmp_path / folder) == plain

    def test_half_taught(self, tmp_path: Path, call: Any, plain: str) -> None:
        """A teaching that was stopped is known by its folder: 'teach' goes on with it, 'resume' says what it does."""

        def listener(event: Event) -> None:
            if isinstance(event, PhaseStarted) and event.phase == "teach":
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted):
            taught(lesson(tmp_path / "store"), tmp_path / "half", listener)
        said = call("teach", "tiny.yaml", "--out", "half")
        assert said[0] == 2 and "go on with it by 'stillhouse teach half'" in said[1]
        assert len(list(tmp_path.glob("half/weights/student*"))) == 0
        code, words = call("resume", "half")
        assert code == 0 and "half was begun by 'stillhouse teach', which has not finished" in words
        assert "stillhouse teach half" in words and digest(tmp_path / "half") == plain
        again = call("resume", "half")[1]
        assert "was begun by" not in again and again.startswith("half is finished: nothing is left to do")
        assert "train the students" not in call("teach", "half")[1]

    def test_set_and_out(self, tmp_path: Path, call: Any) -> None:
        """--set and --out begin a run; a run that was begun takes neither."""
        code, _ = call("teach", "tiny.yaml", "--out", "here", "--set", "student.train.epochs=3")
        assert code == 0 and answered(only_store(tmp_path / "store")) == 3 * SPLIT
        for words in (["--set", "seed=1"], ["--out", "there"]):
            code, said = call("teach", "here", *words)
            assert code == 2 and "here is a run: it goes on as it was begun" in said
        code, said = call("teach", "tiny.yaml", "--out", "here")
        assert code == 2 and "already holds a run" in said

    def test_workers(self, tmp_path: Path, call: Any) -> None:
        """--workers has processes of their own answer, also where a teaching goes on; all is answered."""
        assert call("teach", "tiny.yaml", "--workers", "1", "--out", "here")[0] == 0
        assert answered(only_store(tmp_path / "store")) == 2 * SPLIT
        kinds = [each.get("kind") for each in read_events(tmp_path / "here" / "events.jsonl")]
        assert "joined" in kinds and call("teach", "here", "--workers", "0")[0] == 0

    @pytest.mark.parametrize(("setting", "code", "words"), [
        ("knowledge.source=inline", 2, "keeps no answers"),
        ("store.bytes_max=1000", 2, "store.bytes_max: all answers take 0.2 MB"),
        ("store.bytes_max=0", 2, "store.bytes_max"),
        ("store.path=tiny.yaml", 2, "store.path: tiny.yaml can't be written to"),
        ("teacher.engine.precision=fp16", 2, "fp16 needs a CUDA GPU"),
    ])  # fmt: skip
    def test_exit_codes(self, call: Any, setting: str, code: int, words: str) -> None:
        """What was wrong is told in words, without a traceback, with the exit code of its kind."""
        found, said = call("teach", "tiny.yaml", "--set", setting)
        assert (found, words in said, "Traceback" in said) == (code, True, False), said


@pytest.mark.slow
def test_the_real_command(tmp_path: Path, plain: str) -> None:
    """'stillhouse teach', then 'resume', as processes of their own; and a run folder refuses --set with exit code 2."""
    (tmp_path / "tiny.yaml").write_text(dump(lesson(tmp_path / "store")))
    said = shell("teach", "tiny.yaml", "--out", "run", cwd=tmp_path)
    assert said.code == 0 and "Traceback" not in said.err, said
    refused(shell("teach", "run", "--set", "seed=1", cwd=tmp_path), "is a run")
    assert shell("resume", "run", cwd=tmp_path).code == 0
    assert digest(tmp_path / "run") == plain
    with open_folder(only_store(tmp_path / "store")) as store:
        assert store.damaged_rows == 0

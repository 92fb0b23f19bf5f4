"""Killed, crowded, damaged, deleted, full: whatever a store suffers while runs use it, the students stay the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commandline import shell

from stillhouse.foundation.events import CheckpointWritten, Event, Warned
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import run
from stillhouse.store.examine import verify
from stillhouse.store.shelf import stores

from .lessons import damage, digest, lesson, only_store, told, weights

FORKED = Path(__file__).with_name("forked_store.py")
PATIENCE_S = 120
STEPS, BATCH, KEPT = 40, 120, 2 * 1200
LONG: dict[str, Any] = {"train": {"epochs": 4, "batch_size": BATCH}}
WIDE: dict[str, Any] = {
    "kind": "conv",
    "objective": {"features": [{"teacher": "stage1", "student": "stage1", "weight": 0.3}]},
    "knowledge": {"source": "stored", "features": "fp32"},
}


def seen_twice(labels: Path, source: str = "stored", **sections: Any) -> Recipe:
    """40 steps over four epochs; each of two views is seen in two of them."""
    data = {"source": {"kind": "digits"}, "augment": {"pad_px": 1}, "views": 2}
    return lesson(labels, source, data=data, **{**LONG, **sections})


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the same run without a store."""
    root = tmp_path_factory.mktemp("undisturbed")
    return weights(run(seen_twice(root / "none", "inline"), root / "run"))


def forked(tmp_path: Path, how: str, recipe: Recipe, seed: int = 0) -> dict[str, Any]:
    """What ``forked_store.py`` says."""
    path = tmp_path / f"{how}.yaml"
    path.write_text(dump(recipe))
    command = [sys.executable, str(FORKED), how, str(path), str(tmp_path / f"{how}-{seed}"), str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def undamaged(labels: Path) -> int:
    """Valid rows of all stores in a folder, none of which is damaged."""
    views = [view for each in stores(labels) for view in verify(each.folder, lambda done, rows: None)]
    assert not [view for view in views if view.damaged]
    return sum(view.valid for view in views)


class TestWhileARunGoesOn:
    """What a listener does to the files after each step, in this process."""

    Deed = Callable[[Path, int, random.Random], None]

    def disturbed(self, tmp_path: Path, deed: Deed) -> tuple[dict[str, Any], list[Event]]:
        """The result of a run, and its events, whose store suffers a deed after each step."""
        labels, chance, events = tmp_path / "store", random.Random(3), []

        def listener(event: Event) -> None:
            events.append(event)
            if isinstance(event, CheckpointWritten) and event.phase == "student":
                deed(labels, event.step, chance)

        return run(seen_twice(labels), tmp_path / "run", [listener]), events

    @pytest.mark.parametrize("how", ["bit", "zeros", "cut", "gone"])
    def test_damaged_rows(self, tmp_path: Path, undisturbed: str, how: str) -> None:
        """Rows flipped, wiped, cut off or deleted under a run change no bit; those that were damaged are counted."""

        def deed(labels: Path, step: int, chance: random.Random) -> None:
            if step % 3 == 0:
                damage(only_store(labels), chance.randrange(2), chance.sample(range(1797), 80), how)

        result, _ = self.disturbed(tmp_path, deed)
        assert weights(result) == undisturbed
        assert (result["store"]["rows_damaged"] > 0) == (how == "bit")
        assert result["store"]["hits"] + result["store"]["misses"] == STEPS * BATCH

    @pytest.mark.parametrize("what", ["all stores", "the store", "its views"])
    def test_deleted_folder(self, tmp_path: Path, undisturbed: str, what: str) -> None:
        """A folder deleted under a run costs questions, at most one warning, and no bit."""

        def deed(labels: Path, step: int, chance: random.Random) -> None:
            if step == 15:
                folder = only_store(labels)
                shutil.rmtree({"all stores": labels, "the store": folder, "its views": folder / "views"}[what])

        result, events = self.disturbed(tmp_path, deed)
        assert weights(result) == undisturbed
        assert len(told(events, Warned)) <= 1
        assert weights(run(seen_twice(tmp_path / "store"), tmp_path / "again")) == undisturbed
        assert undamaged(tmp_path / "store") >= KEPT

    def test_pruned_while_in_use(self, tmp_path: Path, undisturbed: str) -> None:
        """'store prune' leaves a store alone that a run has open."""

        def deed(labels: Path, step: int, chance: random.Random) -> None:
            if step == 15:
                said = shell("store", "prune", labels, "--older-than-days", 0, "--yes")
                assert said.code == 0 and "in use, stays" in said.out, said

        result, _ = self.disturbed(tmp_path, deed)
        assert weights(result) == undisturbed and only_store(tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("source", "seed"), [("auto", 1), ("offline", 2)])
def test_killed_while_the_store_is_filled(tmp_path: Path, undisturbed: str, source: str, seed: int) -> None:
    """Killed a dozen times at random moments and resumed, a run that fills a store ends in the same bits."""
    found = forked(tmp_path, "kill", seen_twice(tmp_path / "store", source), seed)
    assert found["digests"] == [undisturbed] and found["times"] >= 3
    run(seen_twice(tmp_path / "store"), tmp_path / "mended")
    undamaged(tmp_path / "store")


@pytest.mark.slow
def test_killed_while_taught(tmp_path: Path, undisturbed: str) -> None:
    """Killed a dozen times while it teaches, a run still has all its answers, and its student reads every one."""
    found = forked(tmp_path, "teach", seen_twice(tmp_path / "store", engine={"batch_size": 16}), 4)
    assert found["digests"] == [undisturbed] and found["times"] >= 3
    assert undamaged(tmp_path / "store") == 2 * 1295
    assert found["store"]["hits"] == STEPS * BATCH


@pytest.mark.slow
@pytest.mark.parametrize("how", ["damage", "delete"])
def test_disturbed_by_another_process(tmp_path: Path, undisturbed: str, how: str) -> None:
    """Another process that spoils or deletes files at any moment changes no bit of a run's student."""
    found = forked(tmp_path, how, seen_twice(tmp_path / "store"))
    assert found["digests"] == [undisturbed]
    assert found["times"] > 0
    assert len(found["warnings"]) <= (how == "delete")


@pytest.mark.slow
def test_three_runs_into_one_store(tmp_path: Path, undisturbed: str) -> None:
    """Three runs that fill one store at the same time end in the same bits, and no row is damaged afterwards."""
    found = forked(tmp_path, "together", seen_twice(tmp_path / "store"))
    assert found["digests"] == [undisturbed] * 3
    assert undamaged(tmp_path / "store") >= KEPT


@pytest.mark.slow
def test_two_real_commands_into_one_store(tmp_path: Path, undisturbed: str) -> None:
    """'stillhouse run' twice at once into one store: the same student, and 'store verify' finds nothing damaged."""
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(seen_twice(tmp_path / "store")))
    script = Path(sys.executable).with_name("stillhouse")
    folders = [tmp_path / "one", tmp_path / "other"]
    processes = [
        subprocess.Popen([script, "run", path, "--out", each], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for each in folders
    ]
    said = [each.communicate(timeout=PATIENCE_S)[1] for each in processes]
    assert [each.returncode for each in processes] == [0, 0], said
    assert [digest(each) for each in folders] == [undisturbed] * 2
    checked = shell("store", "verify", tmp_path / "store")
    assert checked.code == 0 and " 0 damaged" in checked.out, checked


@pytest.mark.slow
def test_a_disk_too_full_for_labels(tmp_path: Path) -> None:
    """Where all of a run fits but no view of its labels, it warns once and ends in the same bits."""
    path, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(dump(lesson(tmp_path / "store", **WIDE)))
    said = shell("run", path, "--out", folder, limit_bytes=1_500_000)
    assert said.code == 0, said
    inline = {**WIDE["knowledge"], "source": "inline"}
    assert digest(folder) == weights(
        run(lesson(tmp_path / "none", **{**WIDE, "knowledge": inline}), tmp_path / "plain")
    )
    result = json.loads((folder / "result.json").read_text())
    assert [warning.count("no more answers are stored") for warning in result["warnings"]] == [1]
    assert "File too large" in result["warnings"][0] and "prune" in result["warnings"][0]
    assert (result["store"]["hits"], result["store"]["bytes_written"]) == (0, 0)


@pytest.mark.slow
def test_a_full_file_system_of_labels(tmp_path: Path, undisturbed: str) -> None:
    """A real file system with room for some rows: a warning, the same bits, and what was written stays valid."""
    labels = tmp_path / "store"
    labels.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", labels], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(seen_twice(labels)))
    try:
        for name, least in (("run", 0), ("again", 1)):
            said = shell("run", path, "--out", tmp_path / name)
            assert said.code == 0, said
            result = json.loads((tmp_path / name / "result.json").read_text())
            assert weights(result) == undisturbed
            assert [warning.count("No space left on device") for warning in result["warnings"]] == [1]
            assert least <= result["store"]["hits"] < STEPS * BATCH
    finally:
        subprocess.run(["umount", labels], check=True)

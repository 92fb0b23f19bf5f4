"""The run directory: who may begin, who may go on."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse.foundation.errors import Interrupted, RunDirError
from stillhouse.recipe.load import load
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.rundir import RunDir, free_folder, open_run
from stillhouse.runner.signals import Signals, listening

Tiny = Callable[..., Recipe]


def test_recipe_of_a_begun_run_reads_back(tmp_path: Path, tiny: Tiny) -> None:
    """From the moment a run has begun, its folder opens and gives back the very recipe."""
    folder = RunDir(tmp_path / "run")
    with folder.held():
        folder.begin(tiny())
    assert open_run(folder.path)[1] == tiny()


def test_a_run_is_never_begun_over_another(tmp_path: Path, tiny: Tiny) -> None:
    """A folder that holds a run is refused with the command that goes on with it."""
    folder = RunDir(tmp_path / "run")
    with folder.held():
        folder.begin(tiny())
    with folder.held(), pytest.raises(RunDirError, match=r"already holds a run.*stillhouse resume .*run"):
        folder.begin(tiny(seed=1))
    assert load(folder.recipe).seed == 0


def test_foreign_files_are_not_mixed_with_a_run(tmp_path: Path, tiny: Tiny) -> None:
    """A folder with somebody's files is refused by their names, one with hidden files only is taken."""
    (tmp_path / ".hidden").write_text("")
    with RunDir(tmp_path).held():
        RunDir(tmp_path).check_free()
    (tmp_path / "thesis.tex").write_text("")
    with RunDir(tmp_path).held(), pytest.raises(RunDirError, match=r"not empty \(thesis\.tex\)"):
        RunDir(tmp_path).begin(tiny())


def test_nothing_to_open(tmp_path: Path) -> None:
    """A folder without a run is refused with the command that starts one."""
    with pytest.raises(RunDirError, match="holds no run"):
        open_run(tmp_path / "none")


def test_held_once(tmp_path: Path) -> None:
    """A held folder can't be held again, and is free afterwards."""
    with RunDir(tmp_path).held(), pytest.raises(RunDirError, match="in use by process"), RunDir(tmp_path).held():
        pass
    with RunDir(tmp_path).held():
        pass


def test_half_written_files_are_cleared(tmp_path: Path) -> None:
    """Taking a run up deletes what a killed process had half written, and nothing else, nor in a foreign folder."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / ".teacher.safetensors.x1.part").write_text("")
    (tmp_path / "weights" / "teacher.part").write_text("")
    with RunDir(tmp_path).held():
        assert len(list((tmp_path / "weights").iterdir())) == 2
    (tmp_path / "recipe.yaml").write_text("")
    with RunDir(tmp_path).held():
        assert [path.name for path in (tmp_path / "weights").iterdir()] == ["teacher.part"]


def test_settling_compares(tmp_path: Path, tiny: Tiny) -> None:
    """The first process writes down recipe and inputs; a later one with others is refused, each change by name."""
    folder = RunDir(tmp_path)
    folder.settle(tiny(), {"data": "aa", "student.model.weights": "bb"}, {})
    folder.settle(tiny(), {"data": "aa", "student.model.weights": "bb"}, {"torch": "newer"})
    with pytest.raises(RunDirError) as caught:
        folder.settle(tiny(seed=3), {"data": "cc", "student.model.weights": "bb"}, {})
    assert "seed: 0 -> 3" in str(caught.value) and "data: aa -> cc" in str(caught.value)
    assert "weights" not in str(caught.value)


def test_a_run_goes_on_under_a_version_that_knows_more_keys(tmp_path: Path, tiny: Tiny) -> None:
    """What its first version could not say means the default; another value than that is a change."""
    folder = RunDir(tmp_path)
    folder.settle(tiny(), {}, {})
    manifest = json.loads(folder.manifest.read_text())
    del manifest["recipe"]["objective"]["kd"]["kind"]
    folder.manifest.write_text(json.dumps(manifest))
    folder.settle(tiny(), {}, {})
    with pytest.raises(RunDirError, match=r"objective\.kd\.kind: kl -> dist"):
        folder.settle(tiny(objective={"kd": {"kind": "dist"}}), {}, {})


def test_a_run_goes_on_with_another_fleet(tmp_path: Path, tiny: Tiny) -> None:
    """Every key of the fleet may differ when a run goes on, and what the first process had does not come back."""
    begun, other = RunDir(tmp_path), {"workers": [1, 4], "backend": "ray", "threads": "auto", "patience_s": 1.0}
    begun.settle(tiny(fleet={"workers": 2, "threads": 3, "without_teachers": "stop"}), {}, {})
    resumed = begun.settled(tiny(fleet=other))
    begun.settle(resumed, {}, {})
    assert resumed == tiny(fleet=other)


def test_free_folder_counts_up(tmp_path: Path, tiny: Tiny) -> None:
    """The default folder is the first of NAME, NAME-2, ... without a run."""
    found = []
    for _ in range(3):
        folder = free_folder("digits", tmp_path)
        found.append(folder.name)
        with RunDir(folder).held():
            RunDir(folder).begin(tiny())
    assert found == ["digits", "digits-2", "digits-3"]


def test_second_signal_is_not_held_back() -> None:
    """The first Ctrl-C asks, the second interrupts at once; afterwards the handler is the one of before."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind it ignores it
    with listening() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.asked() == signal.SIGINT
        with pytest.raises(Interrupted) as caught:
            signals.check("reading")
        assert caught.value.exit_code == 130 and "reading" in str(caught.value)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, found)


def test_what_nohup_ignores_stays_ignored() -> None:
    """A run outlives its terminal, if it was told to."""
    found = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with listening() as signals:
        signal.raise_signal(signal.SIGHUP)
        assert signals.asked() is None
    assert signal.signal(signal.SIGHUP, found) == signal.SIG_IGN


def test_listening_in_a_thread_is_harmless() -> None:
    """Outside the main thread nothing is caught and nothing raises."""
    found: list[Signals] = []

    def work() -> None:
        with listening() as signals:
            signals.check("here")
            found.append(signals)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].asked() is None

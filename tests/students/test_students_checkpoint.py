"""Checkpoints: a training stopped anywhere ends as if it never was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.foundation.errors import Interrupted, ModelError, StorageError
from stillhouse.foundation.events import CheckpointRefused, CheckpointWritten
from stillhouse.recipe.objective import ObjectiveSection

DISTIL = ObjectiveSection.model_validate(
    {"cross_entropy": 0.5, "kd": {}, "features": [{"student": "features", "teacher": "features"}]}
)
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw, average": {"optimizer": {"kind": "adamw"}, "ema_decay": 0.7, "clip_norm": 1.0},
    "channels last, bf16": {"engine": {"channels_last": True, "precision": "bf16"}, "accumulate": 2},
}
STEPS = 12


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same, to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def same(one: nn.Module, other: nn.Module) -> bool:
    return equal(dict(one.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize("name", SETTINGS)
def test_stopping_after_any_step_changes_no_bit(tmp_path: Path, make_lab: Callable[[Path], Any], name: str) -> None:
    """Stopped after step k and resumed, for every k, weights, adapters and optimiser end in the same bits."""
    whole = make_lab(tmp_path / "whole")
    settings = whole.settings(**SETTINGS[name])
    wanted = whole.fit(whole.network(dropout=0.3), settings, DISTIL, whole.checkpoints())
    final = whole.checkpoints().load()
    assert final["step"] == STEPS
    for step in range(1, STEPS):
        lab = make_lab(tmp_path / str(step))
        with pytest.raises(Interrupted, match=f"step {step} of {STEPS}") as caught:
            lab.fit(lab.network(dropout=0.3), settings, DISTIL, lab.checkpoints(every_s=1e9), stop_after=step)
        assert caught.value.exit_code == 130
        # Other initial weights: all that counts must come from the checkpoint.
        found = lab.fit(lab.network(seed=77, dropout=0.3), settings, DISTIL, lab.checkpoints(every_s=1e9))
        assert same(found, wanted) and equal(lab.checkpoints().load(), final), f"stopped after step {step}"


@pytest.mark.parametrize("step", [0, 1, 4, STEPS - 1])
def test_a_source_that_stops_waiting_loses_no_step(tmp_path: Path, make_lab: Callable[[Path], Any], step: int) -> None:
    """Interrupted where the next step's knowledge is waited for, all steps so far are saved, told, and gone on from."""
    whole, lab = make_lab(tmp_path / "whole"), make_lab(tmp_path / "stopped")
    settings = whole.settings(ema_decay=0.7)
    wanted = whole.fit(whole.network(dropout=0.3), settings, DISTIL)

    class Waiting(Stream):
        def batches(self, first: int, last: int, *, unseen: bool = False) -> Iterator[Batch]:
            yield from super().batches(first, step, unseen=unseen)
            raise Interrupted("stopped while waiting", 15)

    stream = lab.stream()
    stream.__class__ = Waiting
    with pytest.raises(Interrupted, match=f"stopped while waiting, at step {step} of {STEPS} of student") as caught:
        lab.fit(lab.network(dropout=0.3), settings, DISTIL, lab.checkpoints(every_s=1e9), stream=stream)
    assert caught.value.exit_code == 143 and len(lab.losses()) == step
    assert [each.stem for each in files(lab)] == [f"step-{step:010d}"]
    found = lab.fit(lab.network(seed=77, dropout=0.3), settings, DISTIL, lab.checkpoints(every_s=1e9))
    assert same(found, wanted) and len(lab.losses()) == STEPS


def test_a_chain_of_stops_changes_no_bit(lab: Any, tmp_path: Path, make_lab: Callable[[Path], Any]) -> None:
    """Stopped after every single step, one after the other, a training still ends in the same bits."""
    other = make_lab(tmp_path / "whole")
    wanted = other.fit(other.network(dropout=0.3), other.settings(), DISTIL)
    for _ in range(STEPS - 1):
        with pytest.raises(Interrupted):
            lab.fit(lab.network(dropout=0.3), lab.settings(), DISTIL, lab.checkpoints(), stop_after=1)
    assert same(lab.fit(lab.network(dropout=0.3), lab.settings(), DISTIL, lab.checkpoints()), wanted)


def test_training_that_is_over_is_not_repeated(lab: Any) -> None:
    """Resumed from its last checkpoint, a finished training takes no step and returns the same network."""
    wanted = lab.fit(lab.network(), lab.settings(ema_decay=0.5), checkpoints=lab.checkpoints())
    lab.events.clear()
    found = lab.fit(lab.network(seed=5), lab.settings(ema_decay=0.5), checkpoints=lab.checkpoints())
    assert same(found, wanted) and not lab.losses()


@pytest.fixture
def stopped(lab: Any) -> Any:
    """A training stopped after step 8, its last two checkpoints kept."""
    with pytest.raises(Interrupted):
        lab.fit(lab.network(), lab.settings(), checkpoints=lab.checkpoints(), stop_after=8)
    lab.events.clear()
    return lab


@pytest.fixture
def undisturbed(tmp_path: Path, make_lab: Callable[[Path], Any]) -> nn.Module:
    other = make_lab(tmp_path / "whole")
    result: nn.Module = other.fit(other.network(), other.settings())
    return result


def files(lab: Any) -> list[Path]:
    return sorted(lab.folder.glob("*.ckpt"))


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.002, 0.5, 0.9999])
def test_truncated_checkpoint_is_passed_over(stopped: Any, undisturbed: nn.Module, share: float) -> None:
    """A checkpoint cut short anywhere is refused by name, the one before is used, and the end is the same."""
    newest = files(stopped)[-1]
    newest.write_bytes(newest.read_bytes()[: int(share * newest.stat().st_size)])
    assert stopped.checkpoints().load()["step"] == 7
    (refused,) = [event for event in stopped.events if isinstance(event, CheckpointRefused)]
    assert refused.file == newest.name and refused.phase == "student"
    assert same(stopped.fit(stopped.network(), stopped.settings(), checkpoints=stopped.checkpoints()), undisturbed)


@pytest.mark.parametrize("place", [0.0, 0.0005, 0.004, 0.3, 0.7, 1.0])
def test_one_wrong_bit_is_seen(stopped: Any, undisturbed: nn.Module, place: float) -> None:
    """One flipped bit anywhere in a checkpoint is seen: never loaded, never trained on."""
    flip(files(stopped)[-1], place)
    found = stopped.fit(stopped.network(), stopped.settings(), checkpoints=stopped.checkpoints())
    assert [event.file for event in stopped.events if isinstance(event, CheckpointRefused)] == ["step-0000000008.ckpt"]
    assert same(found, undisturbed)


def test_all_damaged_starts_anew(stopped: Any, undisturbed: nn.Module) -> None:
    """With every checkpoint damaged the training starts anew, and still ends in the same bits."""
    for path in files(stopped):
        flip(path, 0.5)
    found = stopped.fit(stopped.network(), stopped.settings(), checkpoints=stopped.checkpoints())
    assert same(found, undisturbed)
    assert sum(isinstance(event, CheckpointRefused) for event in stopped.events) == 2


def test_damaged_checkpoints_do_not_push_out_good_ones(stopped: Any, undisturbed: nn.Module) -> None:
    """After a start anew, checkpoints of early steps are kept although the damaged ones had higher numbers."""
    for path in files(stopped):
        flip(path, 0.5)
    with pytest.raises(Interrupted):
        stopped.fit(stopped.network(), stopped.settings(), checkpoints=stopped.checkpoints(), stop_after=3)
    assert stopped.checkpoints().load()["step"] == 3
    assert same(stopped.fit(stopped.network(), stopped.settings(), checkpoints=stopped.checkpoints()), undisturbed)


@pytest.mark.parametrize("keep", [2, 4])
def test_only_the_last_few_are_kept(lab: Any, keep: int) -> None:
    """Of checkpoints at every step the newest ``keep`` stay, and each is told with its size."""
    lab.fit(lab.network(), lab.settings(), checkpoints=lab.checkpoints(keep=keep))
    assert [path.name for path in files(lab)] == [f"step-{step:010d}.ckpt" for step in range(13 - keep, 13)]
    told = [event for event in lab.events if isinstance(event, CheckpointWritten)]
    assert [event.step for event in told] == list(range(1, 13))
    assert told[-1].bytes == files(lab)[-1].stat().st_size
    lab.checkpoints().clear()
    assert not files(lab)


def test_checkpoints_come_by_the_clock(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between checkpoints lie every_s seconds of training, and the last step always has one."""
    now = 0.0
    monkeypatch.setattr("stillhouse.students.checkpoint.time.monotonic", lambda: now)
    checkpoints = lab.checkpoints(every_s=10.0)
    assert not checkpoints.due()
    now = 10.0
    assert checkpoints.due()
    checkpoints.save(1, {})
    assert not checkpoints.due()
    checkpoints.clear()
    lab.fit(lab.network(), lab.settings(), checkpoints=lab.checkpoints(every_s=1e9))
    assert [path.name for path in files(lab)] == ["step-0000000012.ckpt"]


def test_refusing_disk_leaves_the_last_checkpoint(stopped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses a checkpoint raises StorageError and leaves the ones before as they were."""
    before = {path: path.read_bytes() for path in files(stopped)}

    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stillhouse.foundation.files.os.fsync", refuse)
    with pytest.raises(StorageError, match="No space left on device"):
        stopped.fit(stopped.network(), stopped.settings(), checkpoints=stopped.checkpoints())
    assert {path: path.read_bytes() for path in stopped.folder.iterdir() if path.is_file()} == before


def test_checkpoint_runs_no_code(stopped: Any) -> None:
    """A checkpoint with a right checksum that holds a Python object is not unpickled; the one before is used."""
    import hashlib
    import io

    before = stopped.checkpoints().load()
    buffer = io.BytesIO()
    torch.save({"network": Path("x")}, buffer)
    payload = buffer.getvalue()
    path = stopped.folder / "step-0000000099.ckpt"
    path.write_bytes(b"STILLCK1" + hashlib.sha256(payload).digest() + payload)
    after = stopped.checkpoints().load()
    assert before is not None and after is not None and after["step"] == before["step"]


def test_checkpoint_of_another_model_is_refused(stopped: Any) -> None:
    """A checkpoint that does not fit the model is a ModelError that says so, not a traceback."""
    with pytest.raises(ModelError, match="does not fit the model"):
        stopped.fit(stopped.network(width=4), stopped.settings(), checkpoints=stopped.checkpoints())


def test_checkpoints_of_another_place_work(stopped: Any, undisturbed: nn.Module, tmp_path: Path) -> None:
    """A copied folder of checkpoints resumes like the original."""
    shutil.copytree(stopped.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("whole", "copy"))
    stopped.folder = tmp_path / "copy"
    assert same(stopped.fit(stopped.network(), stopped.settings(), checkpoints=stopped.checkpoints()), undisturbed)


def test_a_read_error_costs_no_checkpoint(stopped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails to read is an error to mend; no checkpoint is deleted for it."""
    before = sorted(stopped.folder.glob("*.ckpt"))

    def fail(path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(StorageError, match="Input/output error"):
            stopped.checkpoints().load()
    assert sorted(stopped.folder.glob("*.ckpt")) == before and stopped.checkpoints().load() is not None

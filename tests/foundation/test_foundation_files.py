"""Files that are whole or not there, and folders that one process holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.foundation.errors import RunDirError, StorageError
from stillhouse.foundation.files import (
    digest_json,
    folder_lock,
    read_json,
    remove_leftovers,
    sha256,
    sha256_file,
    write_atomic,
    write_json,
)

FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from stillhouse.foundation.errors import StorageError
from stillhouse.foundation.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"n" * 5000)
except StorageError as error:
    print(error)
"""

HOLD = """
import sys, time
from pathlib import Path
from stillhouse.foundation.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_write_atomic_makes_folders_and_replaces(tmp_path: Path) -> None:
    """A file is written with its folders, and replaced, without leftovers."""
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["b.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """When the disk refuses in the middle of a file, the old one is untouched and nothing lies beside it."""
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "could not write" in done.stdout
    assert str(path) in done.stdout
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_call_leaves_the_old_file(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call of an atomic write fails, the old file stays and nothing lies beside it."""

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "x"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of an atomic write leaves no temporary file."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "x", b"new")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    """Unfinished temporary files go, in sub-folders too; everything else stays."""
    for name in (".a.12.part", "deep/.b.34.part", "part.part", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(each.name for each in tmp_path.rglob("*") if each.is_file()) == [".hidden", "part.part"]


def test_json_round_trip_and_its_errors(tmp_path: Path) -> None:
    """JSON comes back as written; a missing or damaged file is an error that names it."""
    path = tmp_path / "x.json"
    write_json(path, {"b": 1, "a": [None, 2.5]})
    assert read_json(path) == {"b": 1, "a": [None, 2.5]}
    path.write_text('{"b": ')
    with pytest.raises(RunDirError, match=r"x\.json is not valid JSON"):
        read_json(path)
    with pytest.raises(RunDirError, match=r"y\.json is missing"):
        read_json(tmp_path / "y.json")


def test_digests(tmp_path: Path) -> None:
    """Digests are SHA-256; that of a JSON value doesn't depend on the order of keys."""
    assert sha256(b"abc").startswith("ba7816bf8f01cfea")
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == sha256(b"abc")
    assert digest_json({"a": 1, "b": [2]}) == digest_json({"b": [2], "a": 1}) != digest_json({"a": 1, "b": [3]})


def test_a_held_folder_refuses_others_until_its_holder_dies(tmp_path: Path) -> None:
    """A second process is refused by name while the first lives, and let in at once when that is killed."""
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(RunDirError, match=f"in use by process {holder.pid}"), folder_lock(folder):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with folder_lock(folder):
            assert (folder / ".lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """A folder whose place is taken by a file is refused in words."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(RunDirError, match="can't be written to"), folder_lock(folder):
            pass

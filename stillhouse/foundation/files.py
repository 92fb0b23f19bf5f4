"""Files that are either there and whole, or not there: atomic writes, digests, the lock of a folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.foundation.errors import RunDirError, StorageError


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a crash at any point leaves the old one or the new one, never a part.

    Raises:
        StorageError: the disk refused (full, quota, permissions); the old file is untouched and
            nothing is left beside it.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"could not write {path} ({len(data):,} bytes): {error.strerror or error}. "
            "Nothing there was changed; free some space and go on."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        RunDirError: missing or not JSON; names the file.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise RunDirError(f"{path} is missing: is {path.parent} the directory of a run?") from error
    except ValueError as error:
        raise RunDirError(f"{path} is not valid JSON ({error}): it was changed by hand or damaged") from error


def sha256(data: bytes) -> str:
    """Hex SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of the order of its keys."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the kernel frees it when the process ends, however it ends.

    Raises:
        RunDirError: another live process holds it, or no folder can be had there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        reason = error.strerror or error
        raise RunDirError(f"{folder} can't be written to ({reason}): choose another folder with --out") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(handle, 32).decode() or "unknown"
            raise RunDirError(
                f"{folder} is in use by process {owner}: wait for it, or choose another folder with --out"
            ) from error
        with contextlib.suppress(OSError):  # only for the message above: a full disk must not matter here
            os.truncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder by :func:`folder_lock`; true where that can't be told."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished temporary files that a killed process left in a folder of ours."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where what can be found out again is kept: ``STILLHOUSE_CACHE``, else ``stillhouse`` in the user's cache folder.

    It need not exist, nor be writable: a cache is never an error.
    """
    if own := os.environ.get("STILLHOUSE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "stillhouse"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

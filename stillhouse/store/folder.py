"""The folder of one store, and how processes share it.

It holds ``manifest.json``, ``views/NUMBER.rows`` and ``used``: the time of that file is the store's last use, a shared
kernel lock on it says that the store is open, and goes with the process. A store is made under another name and
renamed: it is whole or not there, and of two processes that make it at once the second takes the first one's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from stillhouse.foundation.errors import StorageError
from stillhouse.foundation.keys import PLAIN
from stillhouse.store.manifest import Manifest, write_manifest

BLOCK_BYTES = 4096
USED = "used"
VIEWS = "views"

STORE = re.compile(r"[0-9a-f]{16}")
"""Name of a store's folder."""

LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.(new|old)-[0-9a-f]{16}\.part")
"""Name of a store being made, or being deleted."""

_SUFFIX = ".rows"


def view_path(folder: Path, view: int) -> Path:
    """The file of a view in a store's folder."""
    return folder / VIEWS / (f"plain{_SUFFIX}" if view == PLAIN else f"{view:06d}{_SUFFIX}")


def views_in(folder: Path) -> list[int]:
    """The views that a store's folder has files of, in order."""
    try:
        names = [name.removesuffix(_SUFFIX) for name in os.listdir(folder / VIEWS) if name.endswith(_SUFFIX)]
    except OSError:
        return []
    return sorted(PLAIN if name == "plain" else int(name) for name in names if name == "plain" or name.isdecimal())


def disk_bytes(folder: Path) -> int:
    """Disk space that a folder's files take, holes left out; files that vanish meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue
    return total


def others_bytes(folder: Path) -> int:
    """Disk space that all other stores beside this one may come to take: their files' full lengths, holes and all."""
    named = [each for each in os.listdir(folder.parent) if STORE.fullmatch(each) or LEFTOVER.fullmatch(each)]
    return sum(_full_bytes(folder.parent / each) for each in named if each != folder.name)


def _full_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += -(-os.lstat(os.path.join(parent, name)).st_size // BLOCK_BYTES) * BLOCK_BYTES
    return total


def create(folder: Path, manifest: Manifest) -> None:
    """Make a store's folder, whole at once; where another process was faster, its folder stays."""
    temporary = folder.with_name(f".{folder.name}.new-{secrets.token_hex(8)}.part")
    try:
        (temporary / VIEWS).mkdir(parents=True)
        (temporary / USED).touch()
        write_manifest(temporary, manifest)
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            temporary.rename(folder)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise StorageError(
                f"no label store can be made in {folder.parent} ({error.strerror or error}): choose another folder "
                "with store.path"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def held(folder: Path) -> int | None:
    """Lock a store against removal until the descriptor is closed; None where nothing can be locked (read-only).

    Raises:
        FileNotFoundError: it was removed meanwhile.
    """
    path = folder / USED
    try:
        handle = _open(path, os.O_CREAT)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_SH)
    try:
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
    except FileNotFoundError:
        pass
    os.close(handle)
    raise FileNotFoundError(path)


@contextlib.contextmanager
def counting(root: Path) -> Iterator[None]:
    """One process at a time makes view files in a folder of stores: what it counted stays true."""
    handle = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Hold a store alone, without waiting; false where a process has it open."""
    try:
        handle = _open(folder / USED, 0)
    except OSError:
        yield True
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_alone = True
    except BlockingIOError:
        is_alone = False
    except OSError:  # a file system without locks
        is_alone = True
    try:
        yield is_alone
    finally:
        os.close(handle)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDWR | flags | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        raise
    except OSError:  # somebody else's, or read-only: enough for a lock
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

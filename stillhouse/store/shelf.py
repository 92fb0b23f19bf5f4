"""The folder of label stores: what stands there, which one is nearest to what a run wants, and throwing stores away.

Only folders named by 16 hex digits with ``views/`` or a manifest inside are stores; nothing else is ever touched. A
store goes whole: renamed first, deleted then, so that nobody opens half of one. One that is in use stays.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillhouse.foundation import errors
from stillhouse.foundation.errors import StillhouseError, StorageError, UserError
from stillhouse.store.folder import LEFTOVER, STORE, USED, VIEWS, alone, disk_bytes, views_in
from stillhouse.store.manifest import MANIFEST, Identity, Manifest, read_manifest

_MAKING_S = 3600.0
_DAY_S = 86400.0


@dataclass(frozen=True)
class Shelved:
    """One store as it stands in the folder.

    Attributes:
        manifest: None where it can't be read; ``problem`` says why.
        bytes_on_disk: disk space, holes left out.
        last_used: seconds since 1970.
        views: number of view files.
        in_use: whether a process has it open.
    """

    folder: Path
    manifest: Manifest | None
    problem: str
    bytes_on_disk: int
    last_used: float
    views: int
    in_use: bool


def stores(path: Path) -> list[Shelved]:
    """The stores in a folder, or the one store that the folder is; the latest used first.

    Raises:
        UserError: no such folder.
    """
    if _is_store(path.absolute()):
        return [_shelved(path.absolute())]
    try:
        found = [_shelved(each) for each in sorted(path.iterdir()) if _is_store(each)]
    except OSError as error:
        raise UserError(
            f"{path} holds no label stores ({error.strerror or error}): give the folder that recipes name in store.path"
        ) from error
    return sorted(found, key=lambda each: each.last_used, reverse=True)


def nearest(root: Path, identity: Identity) -> tuple[Shelved, list[str]] | None:
    """The readable store with the fewest differing keys, and these (``there`` is the store's); None where none is."""
    if not root.is_dir():
        return None
    compared = [(each, identity.differences(each.manifest.identity)) for each in stores(root) if each.manifest]
    return min(compared, key=lambda each: len(each[1]), default=None)


def to_prune(
    shelved: Sequence[Shelved],
    now: float,
    names: Sequence[str] = (),
    older_than_days: float | None = None,
    bytes_max: int | None = None,
) -> list[Shelved]:
    """Choose what to throw away: by name, by age, and then the longest unused until the rest is small enough.

    Args:
        now: seconds since 1970.
        names: of folders, or beginnings of one that are no other's.
        older_than_days: days since the last use.
        bytes_max: disk space that may stay; stores in use are not chosen for it.

    Raises:
        UserError: a name that fits none or several.
    """
    chosen = [_named(shelved, name) for name in names]
    if older_than_days is not None:
        chosen += [each for each in shelved if now - each.last_used > older_than_days * _DAY_S]
    staying = [each for each in shelved if each not in chosen]
    if bytes_max is not None:
        left = sum(each.bytes_on_disk for each in staying)
        for each in sorted(staying, key=lambda each: each.last_used):
            if left > bytes_max and not each.in_use:
                chosen.append(each)
                left -= each.bytes_on_disk
    return [each for each in shelved if each in chosen]


def remove(folder: Path) -> bool:
    """Delete a store; False where a process has it open.

    Raises:
        UserError: the folder is a link.
        StorageError: it can't be deleted.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link: remove it, and what it points at, by hand")
    try:
        with alone(folder) as is_alone:
            if not is_alone:
                return False
            gone = folder.with_name(f".{folder.name}.old-{secrets.token_hex(8)}.part")
            folder.rename(gone)
        shutil.rmtree(gone)
    except FileNotFoundError:
        return True  # somebody else was faster
    except OSError as error:
        raise StorageError(f"{folder} can't be removed: {error.strerror or error}") from error
    return True


def clear_leftovers(root: Path) -> None:
    """Delete what killed processes left: stores half deleted, and those half made for longer than an hour."""
    for each in root.iterdir():
        found = LEFTOVER.fullmatch(each.name)
        with contextlib.suppress(OSError):
            if found and (found[1] == "old" or time.time() - each.stat().st_mtime > _MAKING_S):
                shutil.rmtree(each, ignore_errors=True)


def _is_store(folder: Path) -> bool:
    return STORE.fullmatch(folder.name) is not None and ((folder / VIEWS).is_dir() or (folder / MANIFEST).is_file())


def _shelved(folder: Path) -> Shelved:
    manifest, problem = None, ""
    try:
        manifest = read_manifest(folder)
    except StillhouseError as error:
        problem = str(error)
    try:
        last_used = (folder / USED).stat().st_mtime
    except OSError:
        last_used = folder.stat().st_mtime
    with alone(folder) as is_alone:
        return Shelved(
            folder, manifest, problem, disk_bytes(folder), last_used, len(views_in(folder)), in_use=not is_alone
        )


def _named(shelved: Sequence[Shelved], name: str) -> Shelved:
    found = [each for each in shelved if each.folder.name.startswith(name)]
    if len(found) != 1:
        several = ", ".join(each.folder.name for each in found)
        hint = f"which of {several}?" if found else errors.nearest(name, [each.folder.name for each in shelved])
        raise UserError(f"no single store is named '{name}': {hint}")
    return found[0]

"""Checkpoints: one file each, atomic, checksummed, the last few kept, the newest good one used.

A file is the 8 bytes ``STILLCK1``, the SHA-256 of the rest, and a state dict saved by torch, read back with
``weights_only=True``: a checkpoint can't run code. A damaged one is told and deleted, and the one before it is
used: left there, it would count as the newest, and the good ones after it would be deleted in its place.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from stillhouse.foundation.errors import CorruptError, StorageError
from stillhouse.foundation.events import CheckpointRefused, CheckpointWritten, Event
from stillhouse.foundation.files import write_atomic

Buffer = bytes | bytearray

_MAGIC = b"STILLCK1"
_HEADER_BYTES = len(_MAGIC) + hashlib.sha256().digest_size


class Keeper(Protocol):
    """Who keeps a training's checkpoints; see :class:`Checkpoints`."""

    def due(self) -> bool:
        """Whether the time between checkpoints has passed."""

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Keep one."""

    def load(self) -> dict[str, Any] | None:
        """The newest good one."""

    def newest(self) -> Path | None:
        """Where the newest one is."""


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: theirs alone.
        phase: whose training this is, for events.
        every_s: seconds between checkpoints; see :meth:`due`.
        keep: how many to keep, at least 2.
        emit: takes events.
    """

    def __init__(self, folder: Path, phase: str, every_s: float, keep: int, emit: Callable[[Event], None]) -> None:
        self._folder = folder
        self._phase = phase
        self._every_s = every_s
        self._keep = keep
        self._emit = emit
        self._last = time.monotonic()

    @property
    def folder(self) -> Path:
        """Theirs alone."""
        return self._folder

    def due(self) -> bool:
        """Whether the time between checkpoints has passed."""
        return time.monotonic() - self._last >= self._every_s

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, then delete the ones beyond ``keep``.

        Raises:
            StorageError: the disk refused; the checkpoints before are untouched.
        """
        self.write(step, packed(state))

    def write(self, step: int, payload: Buffer) -> None:
        """The same of a state that is :func:`packed` already."""
        started = time.monotonic()
        path = self._folder / f"step-{step:010d}.ckpt"
        write_atomic(path, _MAGIC + hashlib.sha256(payload).digest() + payload)
        for old in self._files()[self._keep :]:
            old.unlink(missing_ok=True)
        self._last = time.monotonic()
        self._emit(CheckpointWritten(self._phase, step, len(payload) + _HEADER_BYTES, self._last - started))

    def load(self) -> dict[str, Any] | None:
        """The newest good checkpoint's state, or None where there is none; damaged ones are deleted."""
        for path in self._files():
            try:
                return unpacked(_read(path), str(path))
            except CorruptError as error:
                self._emit(CheckpointRefused(self._phase, path.name, str(error)))
                path.unlink(missing_ok=True)
        return None

    def newest(self) -> Path | None:
        """The newest checkpoint's path, good or not."""
        return next(iter(self._files()), None)

    def clear(self) -> None:
        """Delete all of them: the training is over and its weights are safe elsewhere."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.ckpt"), reverse=True)


def packed(state: dict[str, Any]) -> bytes:
    """A state as bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpacked(payload: Buffer, name: str) -> dict[str, Any]:
    """The state in such bytes, on the CPU.

    Raises:
        CorruptError: there is none.
    """
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling raises
        raise CorruptError(f"{name} holds no state of ours: {error}") from error
    return state


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} can't be read: {error.strerror or error}; mend that, then resume") from error
    if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
        raise CorruptError(f"{path} is truncated or no checkpoint of ours")
    payload = data[_HEADER_BYTES:]
    if hashlib.sha256(payload).digest() != data[len(_MAGIC) : _HEADER_BYTES]:
        raise CorruptError(f"{path} does not match its checksum: it was damaged on disk or cut short")
    return payload

"""Processes that may be signalled without ever meeting a stranger: each is held by a descriptor, not by its number.

Linux only: ``pidfd_open`` holds a process, ``/proc`` says whose child it is and what it runs. What was read there is
believed only if the process still lived afterwards: until then nobody else can have had its number.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

from stillhouse.foundation.errors import UserError


class Prey:
    """A process, held.

    Attributes:
        title: what it is, for a person.
        frozen: it was stopped, and not let go on.

    Args:
        group: it leads a group of processes, which get what it gets, but for SIGTERM, which it hands on as it likes.
            Its parent is the caller, who waits for it only after :meth:`close`.

    Raises:
        ProcessLookupError: there is none of that number.
    """

    def __init__(self, pid: int, title: str, *, group: bool = False) -> None:
        self.pid, self.title, self.frozen = pid, title, False
        self._group = group
        self._held: int | None = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._held is not None and not select.select([self._held], [], [], 0)[0]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing if it has ended, whoever has its number now."""
        if self._held is None or not self.alive:
            return
        try:
            if self._group and number != signal.SIGTERM:
                os.killpg(self.pid, number)
            else:
                signal.pidfd_send_signal(self._held, number)
        except ProcessLookupError:
            return
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.frozen = number == signal.SIGSTOP

    def close(self) -> None:
        """Let go of it: it gets no signal any more. Idempotent."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def children_of(parent: int, title: str, is_one: Callable[[list[str]], bool]) -> dict[int, Prey]:
    """Processes that a process started, by their number.

    Args:
        parent: a process that can't have ended, and be another one now: the caller holds it.
        title: what they are.
        is_one: which of them are meant; is given a command line.
    """
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or not _is_child(folder, parent, is_one):
            continue
        try:
            prey = Prey(int(folder.name), title)
        except ProcessLookupError:
            continue
        if _is_child(folder, parent, is_one) and prey.alive:
            found[prey.pid] = prey
        else:
            prey.close()
    return found


def check_possible() -> None:
    """Say where processes can't be held.

    Raises:
        UserError: this is no Linux.
    """
    if not (hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal") and Path("/proc/self/stat").exists()):
        raise UserError("chaos needs Linux: elsewhere processes can't be signalled without the risk of hitting another")


def _is_child(folder: Path, parent: int, is_one: Callable[[list[str]], bool]) -> bool:
    try:
        # pid (name) state parent ...; the name may hold anything.
        told = (folder / "stat").read_text().rpartition(")")[2].split()
        return int(told[1]) == parent and is_one((folder / "cmdline").read_text().split("\0"))
    except OSError:
        return False

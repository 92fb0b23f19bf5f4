"""Ctrl-C, SIGTERM and SIGHUP ask once, politely: the run finishes its step, writes a checkpoint and ends.

Where engines are tried it ends between two of them; a compiler at work can't be interrupted.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from stillhouse.foundation.errors import Interrupted


class Signals:
    """What has been asked so far."""

    def __init__(self) -> None:
        self.number: int | None = None

    def asked(self) -> int | None:
        """The signal's number, or None."""
        return self.number

    def check(self, where: str) -> None:
        """Stop here if asked to; for stretches that can be repeated and need no checkpoint.

        Raises:
            Interrupted: a signal came.
        """
        if self.number is not None:
            raise Interrupted(f"stopped {where}", self.number)


@contextlib.contextmanager
def listening() -> Iterator[Signals]:
    """Catch SIGINT, SIGTERM and SIGHUP while it lasts; a second one acts as if nobody listened. Under ``nohup``, which
    ignores SIGHUP, the run outlives its terminal.

    Outside the main thread (a notebook's worker, a server) nothing is caught.
    """
    found = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]

    def ask(number: int, frame: FrameType | None) -> None:
        found.number = number
        signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)

    for number in before:
        signal.signal(number, ask)
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

"""Loops that take turns: each in a process of its own, stopped in the middle while the others run.

A contestant calls its pace once a step. The pace lets a stretch of steps pass, tells how long they took, and then holds
the loop until it is this contestant's turn again: so compiled graphs, pools and filled stores stay warm. Meanwhile the
whole process is stopped by a signal, its helper threads too: nothing is prepared in the time of others.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch


class Pace:
    """Counts steps, and holds the loop after each stretch.

    Args:
        steps: of a stretch.
        warm_steps: that pass before the first one, untimed.
    """

    def __init__(self, connection: Connection, steps: int, warm_steps: int) -> None:
        self._connection, self._steps = connection, steps
        self._left, self._timed = warm_steps, False
        self._begun = 0.0

    def __call__(self) -> None:
        """Call once after each step."""
        self._left -= 1
        if self._left > 0:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._connection.send(time.perf_counter() - self._begun if self._timed else None)
        self._connection.recv()
        self._left, self._timed, self._begun = self._steps, True, time.perf_counter()


class Contestant:
    """A loop in its own process.

    Args:
        loop: an importable function (pace, **arguments) that never ends.
        threads: CPU threads it may use.
    """

    def __init__(
        self, loop: Callable[..., None], steps: int, warm_steps: int, threads: int, arguments: dict[str, Any]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_enter, args=(loop, theirs, steps, warm_steps, threads, arguments), daemon=False
        )
        self._process.start()
        theirs.close()
        self._hear()
        self._signal(signal.SIGSTOP)

    def stretch_s(self) -> float:
        """Run one stretch; its seconds."""
        self._signal(signal.SIGCONT)
        self._connection.send("go")
        seconds = float(self._hear() or 0.0)
        self._signal(signal.SIGSTOP)
        return seconds

    def resident_bytes(self) -> int:
        """Memory of the process that is resident; without its children."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()

    def _signal(self, number: int) -> None:
        children = subprocess.run(["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False)
        for each in (self._process.pid, *map(int, children.stdout.split())):
            if each is not None:
                os.kill(each, number)

    def _hear(self) -> float | None:
        try:
            heard: float | None = self._connection.recv()
        except EOFError as error:
            raise RuntimeError("a contestant ended: see its traceback above") from error
        return heard


def _enter(
    loop: Callable[..., None],
    connection: Connection,
    steps: int,
    warm_steps: int,
    threads: int,
    arguments: dict[str, Any],
) -> None:
    from stillhouse.foundation.allocator import keep_freed_memory
    from stillhouse.runtime.local.children import die_with_parent

    die_with_parent()  # or a killed benchmark would leave it behind, stopped for ever
    keep_freed_memory()
    torch.set_num_threads(threads)
    loop(Pace(connection, steps, warm_steps), **arguments)

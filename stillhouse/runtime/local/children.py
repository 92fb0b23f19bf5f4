"""Worker processes that a run starts itself: their end is heard at once, and told in words with their last lines.

A child leads a process group of its own: Ctrl-C in the terminal does not reach it, and killing the group takes along
whatever it started. The end of the run ends it too: by the end of its connection, and, should it be frozen, by the
kernel (:func:`die_with_parent`). It holds no state, so it is always ended with SIGKILL.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import IO

from stillhouse.foundation.errors import FleetError

_LAST_LINES = 20
_LAST_BYTES = 8192
_SAID_BYTES_MAX = 2**20
_PR_SET_PDEATHSIG = 1


class Child:
    """A process just started.

    Attributes:
        exit_fd: becomes readable when it ended; None where the system has no such thing, then ask :meth:`exited`.

    Raises:
        FleetError: it can't be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        with ExitStack() as undone:
            try:
                self._said = undone.enter_context(tempfile.TemporaryFile())
                # What it says after a trim goes to the new end.
                fcntl.fcntl(self._said, fcntl.F_SETFL, fcntl.fcntl(self._said, fcntl.F_GETFL) | os.O_APPEND)
                self._process = _begun(command, self._said)
            except OSError as error:
                raise FleetError(f"can't start a worker, {command[0]}: {error.strerror or error}") from error
            undone.pop_all()
        self.pid = self._process.pid
        self.exit_fd: int | None = None
        with suppress(AttributeError, OSError):
            self.exit_fd = os.pidfd_open(self.pid)

    def exited(self) -> bool:
        """Whether it ended; for where there is no ``exit_fd``."""
        return self._process.poll() is not None

    def trim(self) -> None:
        """Keep the last lines of what it said, once that is a megabyte: it may talk for weeks. Call now and then."""
        if os.fstat(self._said.fileno()).st_size > _SAID_BYTES_MAX:
            tail = self._tail()
            os.ftruncate(self._said.fileno(), 0)
            os.write(self._said.fileno(), tail)

    def kill(self) -> None:
        """End it, and all that it started, at once; a frozen one too."""
        # Until it is waited for, nobody else gets its number.
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def bury(self) -> str:
        """End it if it lives, free all it held, and tell how it ended: ``killed by SIGKILL``, ``exit code 3: ...``."""
        # What it started may live on; what ended already keeps its exit code.
        self.kill()
        code = self._process.wait()
        story = _named(code)
        if code > 0 and (words := self._last_words()):
            story += f": {words}"
        if self.exit_fd is not None:
            os.close(self.exit_fd)
        self._said.close()
        return story

    def _tail(self) -> bytes:
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), _LAST_BYTES, max(0, size - _LAST_BYTES))

    def _last_words(self) -> str:
        return "\n".join(self._tail().decode(errors="replace").strip().splitlines()[-_LAST_LINES:])


def _begun(command: Sequence[str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    """The process: it finds the modules that this one finds, such as neighbours of a function that a recipe names."""
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0, env=there)


def _named(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def die_with_parent() -> None:
    """Have the kernel kill this process when the *thread* that started it ends, even if this one is frozen then.

    A run must therefore start workers from a thread that lives as long as they shall. Linux only; elsewhere nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

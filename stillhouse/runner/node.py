"""This machine as a node of a Ray cluster: Ray's own command, in a session of its own, said in our words.

SIGTERM for a whole group of processes (a service manager's, as a rule) would end Ray's helpers before the node is
empty. Here it, and Ctrl-C, reach this process alone, which hands it to the one that empties the node first.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from stillhouse.foundation.errors import FleetError
from stillhouse.foundation.words import printable
from stillhouse.runtime.cluster import INLINE, INLINE_BYTES
from stillhouse.runtime.local.children import die_with_parent

_STARTED = "Ray runtime started"
_LAST_LINES = 15
_ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", f"RAY_{INLINE}": str(INLINE_BYTES)}


def be_node(command: Sequence[str], joined: str, tell: Callable[[str], None]) -> None:
    """Until a signal ends it: the first lets its workers finish what they hold, a second ends all at once.

    Args:
        command: makes this machine a node, until SIGTERM.
        joined: what to tell once it is one.

    Raises:
        FleetError: it ended by itself; with Ray's last words.
    """
    last = deque[str](maxlen=_LAST_LINES)

    def say(words: str) -> None:
        with suppress(OSError):  # the terminal may be gone
            tell(words)

    with _asked(say) as asked:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=die_with_parent,
            env={**_ENVIRONMENT, **os.environ},
        )
        with process:
            asked.hand_on_to(process)
            assert process.stdout is not None
            for line in process.stdout:
                last.append(printable(line.rstrip()))
                if _STARTED in line:
                    say(joined)
            code = process.wait()
    if not asked.signals:
        raise FleetError("\n".join([f"this machine is no node any more: Ray ended (exit code {code}):", *last]))
    say("this machine is no node any more")


class _Asked:
    """Signals that came, and what was done about them: nothing while there is no process yet."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.signals: list[int] = []
        self._say = say
        self._process: subprocess.Popen[str] | None = None
        self._done = 0

    def ask(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler."""
        self.signals.append(number)
        self._hand_on()

    def hand_on_to(self, process: subprocess.Popen[str]) -> None:
        """Have it hear what came, and what will come."""
        self._process = process
        self._hand_on()

    def _hand_on(self) -> None:
        process = self._process
        while process is not None and process.returncode is None and self._done < len(self.signals):
            self._done += 1
            if self._done == 1:
                process.terminate()
                self._say("asked to leave: its workers finish what they hold (once more: at once)")
            else:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _asked(say: Callable[[str], None]) -> Iterator[_Asked]:
    """Hears signals. A terminal that is closed is one, unless somebody said that it shall not be (nohup)."""
    found, numbers = _Asked(say), [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, found.ask) for number in numbers}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

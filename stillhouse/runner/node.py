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
    with process, _handing_on(process, tell) as asked:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(printable(line.rstrip()))
            if _STARTED in line:
                tell(joined)
        code = process.wait()
    if not asked:
        raise FleetError("\n".join([f"this machine is no node any more: Ray ended (exit code {code}):", *last]))
    tell("this machine is no node any more")


@contextmanager
def _handing_on(process: subprocess.Popen[str], tell: Callable[[str], None]) -> Iterator[list[int]]:
    """Signals go to the process; yields those that came."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if process.returncode is not None:
            return
        if len(asked) == 1:
            process.terminate()
            tell("asked to leave: its workers finish what they hold (once more: at once)")
        else:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

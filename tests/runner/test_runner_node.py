"""This machine as a node: what is told, and what becomes of signals. Ray's command is played by a short program."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from stillhouse.foundation.errors import FleetError
from stillhouse.runner.node import be_node

BEGIN = "import os, signal, sys, time\nassert os.getsid(0) == os.getpid()\n"
STARTED = "print('Ray runtime started.', flush=True)\n"
POLITE = f"{BEGIN}signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n{STARTED}time.sleep(60)"
STUBBORN = f"{BEGIN}signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{STARTED}time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("program", "times"), [(POLITE, 1), (STUBBORN, 2)])
def test_a_node_leaves(program: str, times: int, number: signal.Signals) -> None:
    """The first signal empties the node, whose helpers hear nothing of it; a second one ends it at once."""
    told: list[str] = []

    def tell(words: str) -> None:
        told.append(words)
        if len(told) <= times:
            os.kill(os.getpid(), number)

    be_node([sys.executable, "-c", program], "it is a node", tell)
    assert told[0] == "it is a node" and told[-1] == "this machine is no node any more"
    assert len(told) == 3 and told[1].startswith("asked to leave")


def test_a_node_that_ends_by_itself() -> None:
    """That is an error, with Ray's last words; its advice of before is not repeated as ours."""
    told: list[str] = []
    with pytest.raises(FleetError, match=r"exit code 3\):\nno room for a store"):
        be_node(
            [sys.executable, "-c", "print('no room for a store'); raise SystemExit(3)"], "it is a node", told.append
        )
    assert told == []

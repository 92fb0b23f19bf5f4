"""This machine as a node: what is told, and what becomes of signals. Ray's command is played by a short program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from stillhouse.foundation.errors import FleetError
from stillhouse.runner.node import be_node

BEGIN = "import os, signal, sys, time\nassert os.getsid(0) == os.getpid()\n"
STARTED = "print('Ray runtime started.', flush=True)\n"
POLITE = f"{BEGIN}signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n{STARTED}time.sleep(60)"
STUBBORN = f"{BEGIN}signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{STARTED}time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(("program", "times"), [(POLITE, 1), (STUBBORN, 2)])
def test_a_node_leaves(program: str, times: int, number: signal.Signals) -> None:
    """The first signal empties the node, whose helpers hear nothing of it; a second one ends it at once."""
    told: list[str] = []

    def tell(words: str) -> None:
        told.append(words)
        if len(told) <= times:
            os.kill(os.getpid(), number)

    before = signal.signal(number, signal.SIG_DFL)  # the tests may have been started by nohup
    try:
        be_node([sys.executable, "-c", program], "it is a node", tell)
    finally:
        signal.signal(number, before)
    assert told[0] == "it is a node" and told[-1] == "this machine is no node any more"
    assert len(told) == 3 and told[1].startswith("asked to leave")


def test_a_signal_that_comes_before_the_node_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while Ray's command is started ends that as if it had come a moment later."""
    told: list[str] = []

    def interrupted(*words: Any, **named: Any) -> subprocess.Popen[str]:
        os.kill(os.getpid(), signal.SIGINT)
        return start(*words, **named)

    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", interrupted)
    be_node([sys.executable, "-c", POLITE], "it is a node", told.append)
    assert told[-1] == "this machine is no node any more" and told[-2].startswith("asked to leave")


def test_a_closed_terminal_ends_no_node_that_shall_outlive_it() -> None:
    """Under nohup a hang-up is not heard, and what can't be told any more is not told."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def tell(words: str) -> None:
        told.append(words)
        os.kill(os.getpid(), signal.SIGTERM if len(told) == 1 else signal.SIGHUP)
        raise OSError("the terminal is gone")

    told: list[str] = []
    try:
        be_node([sys.executable, "-c", POLITE], "it is a node", tell)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [words.partition(":")[0] for words in told] == [
        "it is a node",
        "asked to leave",
        "this machine is no node any more",
    ]


def test_a_node_that_ends_by_itself() -> None:
    """That is an error, with Ray's last words; its advice of before is not repeated as ours."""
    told: list[str] = []
    with pytest.raises(FleetError, match=r"exit code 3\):\nno room for a store"):
        be_node(
            [sys.executable, "-c", "print('no room for a store'); raise SystemExit(3)"], "it is a node", told.append
        )
    assert told == []

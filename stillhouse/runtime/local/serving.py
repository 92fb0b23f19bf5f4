"""A worker's side: come in by the door of a run, load what it says, answer until it is over.

The main thread loads and computes; a :class:`~stillhouse.runtime.local.listener.Listener` hears the run and signals
meanwhile, so that a revoked loan is left out and a worker whose run is gone ends in the middle of whatever it does.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

from stillhouse.foundation.errors import StillhouseError
from stillhouse.foundation.words import printable
from stillhouse.runtime.local.channel import Channel
from stillhouse.runtime.local.children import die_with_parent
from stillhouse.runtime.local.door import connected
from stillhouse.runtime.local.frames import PROTOCOL, Bytes
from stillhouse.runtime.local.listener import Listener, Loan

# Some libraries' messages hold whole arrays.
_WORDS_MAX = 10_000


class Served(NamedTuple):
    """What a worker made of its job: loaded, warm, ready to answer.

    Attributes:
        facts: plain JSON about it, for the run's gatekeeper; ``host``, ``pid`` and ``stillhouse`` are added.
        slots: the most loans that it wants to hold at once, from 1.
        proof: what it shows of its work, as long as the run expects.
        answer: makes bytes of a loan's payload; what it returned must not change any more. An exception is told as a
            failure of this one loan; MemoryError and SystemExit end the worker.
    """

    facts: Mapping[str, Any]
    slots: int
    answer: Callable[[bytes], Bytes]
    proof: Bytes = b""


def serve(address: str, prepare: Callable[[Mapping[str, Any]], Served], *, name: str | None = None) -> int:
    """Work for the run at an address until it sends this worker away; the exit code for the process.

    To be called in the main thread, whose signals it takes. SIGTERM means: finish what you hold, then leave; a second
    one: leave at once. SIGINT means the same for a worker that joined by hand, and nothing for one that the run
    started. If the run is gone, the process exits with code 1 wherever it is.

    Args:
        prepare: gets the run's job; loads and warms up.
        name: what the run started this worker with; None: it joins by hand.

    Returns:
        0, or 2 if it was turned away before it was lent anything; the run's reason is printed.

    Raises:
        FleetError: no run listens there.
        UserError: another user does.
        Exception: what ``prepare`` raised; the run was told.
    """
    if name is not None:
        die_with_parent()
    channel = Channel(connected(address), takes_fds=True)
    channel.send(
        {
            "do": "hello",
            "protocol": PROTOCOL,
            "stillhouse": version("stillhouse"),
            "pid": os.getpid(),
            "host": platform.node(),
            "fds": hasattr(socket, "recv_fds"),
            "name": name or "",
        }
    )

    def say(words: str) -> None:
        if name is None:  # of those that a run starts only their last words are wanted
            print(printable(f"worker {words}"), file=sys.stderr, flush=True)

    with Listener(channel, by_hand=name is None) as listener:
        try:
            job = listener.job()
            say(listener.welcome)
            served = prepare(job)
            say("is loaded, shows its answers, and waits for questions")
            listener.ready({"facts": served.facts, "slots": served.slots}, served.proof)
            loan = listener.next_loan()
            if loan is not None:
                say("was let in, and answers")
            while loan is not None:
                _work_off(listener, served, loan)
                loan = listener.next_loan()
        except BaseException as error:
            listener.say_bye(_in_words(error))
            raise
        print(printable(f"worker ends: {listener.farewell}"), file=sys.stderr)
        return listener.exit_code


def _work_off(listener: Listener, served: Served, loan: Loan) -> None:
    begun_s = time.monotonic()
    try:
        answer = memoryview(served.answer(loan.payload))
        spent_s = time.monotonic() - begun_s
        listener.answer(loan, answer.cast("B") if answer.nbytes else memoryview(b""), spent_s)
    except MemoryError:
        raise
    except Exception as error:
        if not isinstance(error, StillhouseError):
            traceback.print_exc()
        listener.fail(loan, _in_words(error))


def _in_words(error: BaseException) -> str:
    words = str(error) if isinstance(error, StillhouseError) else f"{type(error).__name__}: {error}"
    return words[:_WORDS_MAX]

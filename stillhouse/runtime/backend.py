"""Where workers live: the protocol between the driver and this machine, a Ray cluster, or a simulation.

A backend carries messages and knows the life and death of workers; it decides nothing. What goes out (what to do)
and what comes back (answers) is opaque bytes. One conformance suite, ``tests/runtime``, holds for every backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from stillhouse.runtime.work import Lease


class Hello(NamedTuple):
    """A worker is loaded, warm and wants work: in reply to it the driver lets it in, or turns it away.

    Attributes:
        facts: plain JSON about it: what it answers with (digests), ``pace_s`` (seconds a unit, or None), ``host``,
            ``pid``, ``device``, ``engine``; the driver's gatekeeper looks at them.
        slots: the most items that it can hold at once.
        proof: what it shows of its work; the gatekeeper looks at that, too.
    """

    worker: str
    facts: Mapping[str, Any]
    slots: int
    proof: bytes | bytearray = b""


class Answer(NamedTuple):
    """What a worker made of a loan.

    Attributes:
        payload: the receiver's: nothing of it is reused by the backend.
        spent_s: seconds that the worker took for it, by its own clock; None where it does not say.
    """

    worker: str
    lease: Lease
    payload: bytes | bytearray | memoryview
    spent_s: float | None = None


class Failure(NamedTuple):
    """A worker tried and could not; it goes on with other items."""

    worker: str
    lease: Lease
    why: str


class Skip(NamedTuple):
    """A worker heard in time that a loan is not needed, and left it out."""

    worker: str
    lease: Lease


class Leaving(NamedTuple):
    """A worker wants to go: it was told to (SIGTERM). It finishes what it holds."""

    worker: str
    why: str


class Left(NamedTuple):
    """A worker is no more; nothing of it follows.

    Attributes:
        why: for a person: its signal, exit code, last words.
        refused: the backend turned it away, since it could not even say hello.
    """

    worker: str
    why: str
    refused: bool = False


Report = Hello | Answer | Failure | Skip | Leaving | Left


class Backend(Protocol):
    """Starts workers and talks with them. All methods but ``wake`` are called from one thread.

    Every loan that was sent comes back exactly once, as an answer, a failure or a skip, unless its worker is gone.
    Names of workers are never reused within a backend's life. Reports of one worker come in the order they happened,
    ``Left`` exactly once and last. What is sent to a worker that is gone is lost without complaint.
    """

    def start(self) -> str:
        """Begin one more worker; its name. It says hello when it is warm, or ``Left`` comes with the reason.

        Raises:
            StillhouseError, OSError: no worker can be started here, or not now.
        """

    def placed(self, worker: str) -> bool:
        """Whether a worker that was started has a machine. Until then it waits for one, and nothing is wrong; from then
        on it loads. True of one that has said hello; of one that is gone: whether it ever had a machine.
        """

    def send(self, worker: str, lease: Lease, payload: bytes) -> None:
        """Give a loan to a worker; it works them off in the order sent, at most ``slots`` at a time."""

    def revoke(self, worker: str, lease: Lease) -> None:
        """Tell that a loan is not needed: the worker skips it if it has not begun it, else answers as ever."""

    def dismiss(self, worker: str, why: str, *, kill: bool, refused: bool = False) -> None:
        """End a worker: politely (it is idle, or still loading), or at once. ``Left`` follows.

        Args:
            why: for the person who started it.
            refused: it was not let in: its process ends with exit code 2, the user's mistake, and not 0.
        """

    def poll(self, timeout_s: float) -> list[Report]:
        """What happened since; waits up to ``timeout_s`` for a first report, or until :meth:`wake`."""

    def wake(self) -> None:
        """Let a waiting :meth:`poll` return now; may be called from any thread."""

    def close(self) -> None:
        """End all workers, at once, and free everything. Idempotent."""

"""A worker's side on a Ray cluster: an actor that loads, answers, and is heard of when its process ends."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import ray

from stillhouse.foundation.errors import StillhouseError
from stillhouse.foundation.stamp import code_stamp
from stillhouse.runtime.local.serving import Served
from stillhouse.runtime.work import Lease

_WORDS_MAX = 10_000
_LOOK_S = 2.0
_END_LOOK_S = 0.2


class Process(NamedTuple):
    """A process of a node; ``born``: when it began, so that nobody else with its number is taken for it."""

    node: str
    host: str
    pid: int
    born: str


def _born(pid: int) -> str:
    """In the kernel's own unit; "" where it is no more, or the system does not tell."""
    try:
        # pid (name) state ...; the name may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def end(process: Process) -> None:
    """To be run on the node of a process: kills it, and returns when it is no more."""
    while process.born and _born(process.pid) == process.born:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(_END_LOOK_S)


class TeacherActor:
    """The actor's side: loads, answers loans in the order they came, and hears meanwhile what is revoked.

    What goes wrong comes back as a value: an exception would bring a traceback, and a class that the other side may not
    have. It is told nothing, and asked nothing else, before ``here`` said that both sides have the same code.
    """

    def __init__(self) -> None:
        self._served: Served | None = None
        self._revoked: set[Lease] = set()
        self._leaving = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._leaving.set())

    @ray.method(concurrency_group="work")
    def load(self, job: Mapping[str, Any], prepare: Callable[[Mapping[str, Any]], Served]) -> tuple[str, Any]:
        """("ready", (facts, slots, proof)), or ("unfit", why)."""
        try:
            self._served = served = prepare(job)
        except Exception as error:
            return "unfit", in_words(error)
        here = {"host": platform.node(), "pid": os.getpid(), "stillhouse": version("stillhouse")}
        return "ready", ({**served.facts, **here}, served.slots, bytes(served.proof))

    @ray.method(concurrency_group="work")
    def answer(self, lease: Lease, payload: bytes) -> tuple[str, Any]:
        """("answer", (bytes, seconds)), ("failure", why) or ("skip", None)."""
        assert self._served is not None
        if lease in self._revoked:
            self._revoked.discard(lease)
            return "skip", None
        begun_s = time.monotonic()
        try:
            answer = bytes(self._served.answer(payload))
            return "answer", (answer, time.monotonic() - begun_s)
        except MemoryError:
            raise
        except Exception as error:
            return "failure", in_words(error)

    @ray.method(concurrency_group="talk")
    def here(self) -> str:
        """Which code there is, as soon as there is a machine for this worker."""
        return code_stamp()

    @ray.method(concurrency_group="talk")
    def process(self) -> Process:
        """Which process this is."""
        return Process(ray.get_runtime_context().get_node_id(), platform.node(), os.getpid(), _born(os.getpid()))

    @ray.method(concurrency_group="talk")
    def revoke(self, lease: Lease) -> None:
        """A loan need not be begun."""
        self._revoked.add(lease)

    @ray.method(concurrency_group="watch")
    def wants_to_leave(self) -> str:
        """Returns when somebody wants this worker's place, or its node's."""
        node = ray.get_runtime_context().get_node_id()
        while not self._leaving.wait(_LOOK_S):
            if node in _draining():
                return "its machine is to be taken away"
        return "asked to leave (SIGTERM)"

    @ray.method(concurrency_group="watch")
    def live(self) -> None:
        """Never returns: so the end of this process is heard at once, whatever it does."""
        threading.Event().wait()


def _draining() -> Collection[str]:
    """Nodes that take nothing more and go soon: what Ray's own trainer asks, too; nothing public tells."""
    try:
        found: Collection[str] = ray._private.state.state.get_draining_nodes()
    except Exception:  # not public, so it may be gone, or fail anyhow: then nodes go without notice
        return ()
    return found


def in_words(error: BaseException) -> str:
    """What an error says, for a person."""
    text = str(error) if isinstance(error, StillhouseError) else f"{type(error).__name__}: {error}"
    return text[:_WORDS_MAX]

"""Backends on which the conformance suite plays. A new backend joins by a function here and its line in ``STAGES``."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from stillhouse.runtime.backend import Backend, Hello, Left, Report
from stillhouse.runtime.local.backend import LocalBackend
from stillhouse.runtime.simulated.backend import Simulated
from stillhouse.runtime.simulated.weather import Kind, Vanish, VirtualClock, Weather

from .acting import EXCUSE, FACTS, LAST_WORDS, Role, act, prepare, seconds_of

ACTOR = Path(__file__).with_name("acting.py")
COMMAND = (sys.executable, str(ACTOR))


@dataclass
class Stage:
    """A backend, and what the outer world can do to its workers once they said hello.

    Attributes:
        kill: a worker ends without a word.
        ask_to_leave: somebody wants a worker's place.
        now_s: the clock by which ``poll`` waits.
        hears_stderr: whether a process that ends without a word to its run is known by its last lines.
    """

    backend: Backend
    kill: Callable[[Hello], None]
    ask_to_leave: Callable[[Hello], None]
    now_s: Callable[[], float]
    hears_stderr: bool = True

    def until(self, enough: Callable[[list[Report]], bool]) -> list[Report]:
        """All reports until there are enough."""
        reports: list[Report] = []
        for _ in range(400):
            if enough(reports):
                return reports
            reports += self.backend.poll(0.05)
        raise AssertionError(f"waited for more than {reports}")

    def ready(self, workers: int = 1) -> list[Hello]:
        """Start workers and hear their hellos."""
        names = [self.backend.start() for _ in range(workers)]
        hellos = {each.worker: each for each in self.until(lambda heard: len(heard) == workers)}
        return [hellos[name] for name in names]  # type: ignore[misc]

    def left(self, worker: str) -> Left:
        """Hear nothing but the end of a worker."""
        (report,) = self.until(bool)
        assert isinstance(report, Left) and report.worker == worker
        return report


def unexpected(message: str) -> None:
    """A warning that nobody expects is an error."""
    raise AssertionError(message)


@contextmanager
def local(role: Role) -> Iterator[Stage]:
    """Processes of this machine."""
    backend = LocalBackend(role._asdict(), COMMAND, unexpected)
    try:
        yield Stage(
            backend,
            lambda hello: os.kill(hello.facts["pid"], signal.SIGKILL),
            lambda hello: os.kill(hello.facts["pid"], signal.SIGTERM),
            time.monotonic,
        )
    finally:
        backend.close()


@contextmanager
def local_inline(role: Role) -> Iterator[Stage]:
    """The same on a system without memory that has no name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(os, "memfd_create")
        with local(role) as stage:
            yield stage


@contextmanager
def simulated(role: Role) -> Iterator[Stage]:
    """Workers on a virtual clock."""
    last_words = {"refuses": EXCUSE, "crashes": EXCUSE, "dies": LAST_WORDS}.get(role.loading)
    load_s = 60.0 if role.loading == "long" else 0.01
    kind = Kind(pace_s=1.0, load_s=load_s, slots=role.slots, facts=FACTS, last_words=last_words)
    clock = VirtualClock()

    def answer(payload: bytes) -> bytes:
        if payload == b"vanish":
            raise Vanish
        return act(payload)

    backend = Simulated(clock, [kind], Weather(), 0, seconds_of, answer)
    yield Stage(
        backend,
        lambda hello: backend.crash(hello.worker),
        lambda hello: backend.ask_to_leave(hello.worker),
        clock,
    )
    backend.close()


@contextmanager
def on_ray(role: Role, warn: Callable[[str], None] = unexpected) -> Iterator[Stage]:
    """Actors of a cluster of this machine alone; it stays for the next test."""
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from stillhouse.runtime.ray_backend import RayBackend

    if not ray.is_initialized():
        os.environ["PYTHONPATH"] = os.pathsep.join(["tests", str(Path(__file__).parents[2])])
        ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
        atexit.register(ray.shutdown)
    backend = RayBackend(role._asdict(), prepare, {"num_cpus": 1}, warn)

    def signalled(number: signal.Signals) -> Callable[[Hello], None]:
        def do(hello: Hello) -> None:
            with suppress(ProcessLookupError):  # dismissed, and gone before that was heard
                os.kill(hello.facts["pid"], number)

        return do

    yield Stage(backend, signalled(signal.SIGKILL), signalled(signal.SIGTERM), time.monotonic, hears_stderr=False)
    backend.close()


STAGES: dict[str, Callable[[Role], AbstractContextManager[Stage]]] = {
    "local": local,
    "local_inline": local_inline,
    "simulated": simulated,
}
ON_RAY = {"ray": on_ray}
"""Played by tests that are marked ``ray``: a cluster takes seconds to start."""

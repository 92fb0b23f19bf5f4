"""A dispatcher played by hand: short words for events, a clock that is set, and all invariants after every event."""

from __future__ import annotations

from typing import Any, TypeVar

from stillhouse.runtime import work as w
from stillhouse.runtime.dispatch.dispatcher import Dispatcher
from stillhouse.runtime.dispatch.settings import Settings

C = TypeVar("C")


class ByHand:
    """``out`` holds the commands of the last event, ``now`` is seconds."""

    def __init__(self, **settings: Any) -> None:
        defaults = {"window_bytes": 100, "lease_min_s": 1.0, "round_trip_s": 0.05, "suspect_patience_s": 10.0}
        self.dispatcher = Dispatcher(Settings(**{**defaults, **settings}))
        self.now = 0.0
        self.out: list[w.Command] = []
        self.asked: dict[str, int] = {}

    def handle(self, event: w.Event) -> list[w.Command]:
        self.out = self.dispatcher.handle(event, self.now)
        self.dispatcher.check()
        return self.out

    def join(self, worker: str, pace_s: float | None = 1.0, slots: int = 8) -> list[w.Command]:
        return self.handle(w.Joined(worker, pace_s, slots))

    def ask(self, consumer: str = "s", items: int = 1, size: int = 1, nbytes: int = 1) -> list[w.Command]:
        """All commands of asking for some items more."""
        heard: list[w.Command] = []
        for _ in range(items):
            number = self.asked.get(consumer, 0)
            self.asked[consumer] = number + 1
            heard += self.handle(w.Submitted(w.Item(consumer, number, size, nbytes)))
        return heard

    def answer(self, worker: str, number: int, generation: int = 1, consumer: str = "s") -> list[w.Command]:
        return self.handle(w.Answered(worker, w.Lease(consumer, number, generation)))

    def fail(self, worker: str, number: int, generation: int = 1, consumer: str = "s") -> list[w.Command]:
        return self.handle(w.Failed(worker, w.Lease(consumer, number, generation), "it failed"))

    def skip(self, worker: str, number: int, generation: int = 1, consumer: str = "s") -> list[w.Command]:
        return self.handle(w.Skipped(worker, w.Lease(consumer, number, generation)))

    def gone(self, worker: str) -> list[w.Command]:
        return self.handle(w.Gone(worker, "it died"))

    def take(self, number: int, consumer: str = "s") -> list[w.Command]:
        return self.handle(w.Taken(consumer, number))

    def tick(self, now: float) -> list[w.Command]:
        self.now = now
        return self.handle(w.Tick())

    def wake(self) -> list[w.Command]:
        """Wait for the time it asks to be woken at, and tick."""
        at_s = self.dispatcher.wake_at()
        assert at_s is not None
        return self.tick(at_s)

    def told(self, kind: type[C]) -> list[C]:
        """Of the last commands those of a kind."""
        return [each for each in self.out if isinstance(each, kind)]

    def sent(self) -> list[tuple[str, int]]:
        """(worker, number) of what was sent last."""
        return [(each.worker, each.lease.number) for each in self.told(w.Send)]


def sent(commands: list[w.Command]) -> list[tuple[str, int]]:
    """(worker, number) of all that is sent."""
    return [(each.worker, each.lease.number) for each in commands if isinstance(each, w.Send)]

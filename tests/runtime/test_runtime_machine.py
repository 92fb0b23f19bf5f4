"""Any sequence of events: all invariants hold after each, and when the fleet is well again everything is answered."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from stillhouse.runtime import work as w
from stillhouse.runtime.dispatch.dispatcher import Dispatcher
from stillhouse.runtime.dispatch.settings import Settings

INDEX = st.integers(0, 99)
CONSUMERS = ("x", "y", "z")


class DispatcherMachine(RuleBasedStateMachine):
    """``held`` is what each living worker was lent and has not reported on, ``packing`` what of it was not sent yet;
    ``ready``, ``taken`` count deliveries.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings(window_bytes=20, suspect_patience_s=5.0, tries_max=3)
        self.dispatcher = Dispatcher(self.settings)
        self.now = 0.0
        self.joined = 0
        self.held: dict[str, list[w.Lease]] = {}
        self.packing: dict[str, list[w.Lease]] = {}
        self.resting: set[str] = set()
        self.draining: set[str] = set()
        self.asked: dict[str, int] = {}
        self.ready: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        self.kept: set[tuple[str, int]] = set()
        self.closed: set[str] = set()

    def handle(self, event: w.Event) -> None:
        for command in self.dispatcher.handle(event, self.now):
            self.follow(command)
        self.dispatcher.check()

    def follow(self, command: w.Command) -> None:
        """Do as told, and see that it is right to do."""
        if isinstance(command, w.Send):
            assert command.worker not in self.resting | self.draining
            self.held[command.worker].append(command.lease)
            if command.worker in self.packing:
                self.packing[command.worker].append(command.lease)
        elif isinstance(command, w.Revoke):
            assert command.lease in self.held[command.worker]
        elif isinstance(command, w.Keep):
            key = (command.lease.consumer, command.lease.number)
            assert key not in self.kept
            self.kept.add(key)
        elif isinstance(command, w.Deliver | w.GiveUp):
            assert command.number == self.ready.get(command.consumer, 0)
            assert isinstance(command, w.GiveUp) or (command.consumer, command.number) in self.kept
            self.ready[command.consumer] = command.number + 1
        elif isinstance(command, w.Suspect | w.Dismiss):
            self.resting.add(command.worker)
        elif isinstance(command, w.Trust):
            self.resting.discard(command.worker)

    @rule(pace_s=st.sampled_from([None, 0.01, 0.5, 4.0]), slots=st.integers(1, 4), packed=st.booleans())
    def join(self, pace_s: float | None, slots: int, packed: bool = False) -> None:
        name = f"w{self.joined}"
        self.joined += 1
        self.held[name] = []
        if packed:
            self.packing[name] = []
        self.handle(w.Joined(name, pace_s, slots, packed=packed))

    @precondition(lambda self: any(self.packing.values()))
    @rule(which=INDEX)
    def send(self, which: int) -> None:
        """What was lent first is packed."""
        workers = [name for name, leases in self.packing.items() if leases]
        name = workers[which % len(workers)]
        self.handle(w.Sent(name, self.packing[name].pop(0), 0.5))

    @rule(consumer=st.sampled_from(CONSUMERS), size=st.integers(1, 5), nbytes=st.integers(1, 30))
    def ask(self, consumer: str, size: int, nbytes: int) -> None:
        if consumer in self.closed or nbytes > self.dispatcher.room(consumer):
            return
        number = self.asked.get(consumer, 0)
        self.asked[consumer] = number + 1
        self.handle(w.Submitted(w.Item(consumer, number, size, nbytes)))

    @rule(consumer=st.sampled_from(CONSUMERS))
    def take(self, consumer: str) -> None:
        number = self.taken.get(consumer, 0)
        if consumer not in self.closed and number < self.ready.get(consumer, 0):
            self.taken[consumer] = number + 1
            self.handle(w.Taken(consumer, number))

    @rule(consumer=st.sampled_from(CONSUMERS), sure=st.integers(0, 3))
    def close(self, consumer: str, sure: int) -> None:
        if not sure and consumer not in self.closed:
            self.closed.add(consumer)
            self.handle(w.Closed(consumer))

    @precondition(lambda self: any(self.held.values()))
    @rule(which=INDEX, place=INDEX, how=st.sampled_from(["answer", "answer", "fail", "skip", "twice"]))
    def report(self, which: int, place: int, how: str) -> None:
        """A worker reports on anything that it holds, mostly on the first."""
        workers = [name for name, leases in self.held.items() if leases]
        name = workers[which % len(workers)]
        leases = self.held[name]
        lease = leases.pop(place % len(leases) if place > 80 else 0)
        if lease in self.packing.get(name, []):
            self.packing[name].remove(lease)
            how = "skip"
        if how == "fail":
            self.handle(w.Failed(name, lease, "no"))
        elif how == "skip":
            self.handle(w.Skipped(name, lease))
        else:
            self.handle(w.Answered(name, lease))
            if how == "twice":
                self.handle(w.Answered(name, lease))

    @precondition(lambda self: self.held)
    @rule(which=INDEX)
    def die(self, which: int) -> None:
        name = sorted(self.held)[which % len(self.held)]
        del self.held[name]
        self.packing.pop(name, None)
        self.handle(w.Gone(name, "dead"))

    @precondition(lambda self: self.held)
    @rule(which=INDEX)
    def drain(self, which: int) -> None:
        name = sorted(self.held)[which % len(self.held)]
        self.draining.add(name)
        self.handle(w.Draining(name, "told to"))

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def tick(self) -> None:
        """As a driver does: sleep until it is to be woken."""
        at_s = self.dispatcher.wake_at()
        self.now = max(self.now, at_s or 0.0)
        self.handle(w.Tick())
        after_s = self.dispatcher.wake_at()
        assert after_s is None or after_s > self.now, "a tick settles all that is due"

    def teardown(self) -> None:
        """Others come, all old ones die: everything that was asked is delivered."""
        for name in list(self.held):
            del self.held[name]
            self.handle(w.Gone(name, "the end"))
        self.join(0.01, 4)
        self.join(0.01, 4)
        for _ in range(1000):
            if not any(self.held.values()):
                break
            self.report(0, 0, "answer")
        for consumer, number in self.asked.items():
            assert consumer in self.closed or self.ready.get(consumer, 0) == number, f"{consumer} waits for ever"


TestDispatcherMachine = DispatcherMachine.TestCase
TestDispatcherMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)

"""What holds for every backend: how workers come to an end, and whatever happens to many of them."""

from __future__ import annotations

import random

import pytest

from stillhouse.foundation.errors import StillhouseError
from stillhouse.runtime.backend import Answer, Failure, Hello, Leaving, Left, Report, Skip
from stillhouse.runtime.work import Lease

from .acting import EXCUSE, LAST_WORDS
from .loans import Begin, bare, loan, of


def test_a_killed_worker_left(begin: Begin) -> None:
    """Of a worker that is killed one comes to hear exactly once, after all else; the others go on."""
    stage = begin()
    doomed, other = stage.ready(2)
    for number in range(3):
        stage.backend.send(doomed.worker, loan(number), b"wait 0.2")
    stage.until(bool)
    stage.kill(doomed)
    heard = stage.until(lambda reports: bool(of(Left, reports)))
    assert isinstance(heard[-1], Left) and heard[-1].worker == doomed.worker and heard[-1].why
    stage.backend.send(other.worker, loan(7), b"echo still here")
    heard = stage.until(bool) + stage.backend.poll(0.3)
    assert bare(heard) == [Answer(other.worker, loan(7), b"still here")]


def test_a_worker_that_vanishes_at_work_left(begin: Begin) -> None:
    """A worker that ends while it answers has left; what it held does not come back."""
    stage = begin()
    (worker,) = stage.ready()
    stage.backend.send(worker.worker, loan(0), b"vanish")
    stage.backend.send(worker.worker, loan(1), b"echo x")
    assert stage.left(worker.worker).why
    assert stage.backend.poll(0.1) == []


@pytest.mark.parametrize(("loading", "words"), [("refuses", EXCUSE), ("crashes", EXCUSE), ("dies", LAST_WORDS)])
def test_a_worker_that_can_not_load_left(begin: Begin, loading: str, words: str) -> None:
    """A worker that ends while it loads never says hello; why it left has its last words."""
    stage = begin(loading=loading)
    why = stage.left(stage.backend.start()).why
    assert words in why if stage.hears_stderr or loading != "dies" else why


@pytest.mark.parametrize("kill", [False, True])
def test_dismissed_when_idle(begin: Begin, kill: bool) -> None:
    """An idle worker that is dismissed, politely or not, leaves once, for the reason given."""
    stage = begin()
    (worker,) = stage.ready()
    stage.backend.dismiss(worker.worker, "too many of you", kill=kill)
    stage.backend.dismiss(worker.worker, "said twice", kill=kill)
    assert stage.left(worker.worker).why == "too many of you"
    assert stage.backend.poll(0.1) == []


@pytest.mark.parametrize("kill", [False, True])
def test_dismissed_while_loading(begin: Begin, kill: bool) -> None:
    """A worker can be dismissed while it loads; it leaves without a hello, at once."""
    stage = begin(loading="long")
    name = stage.backend.start()
    stage.backend.poll(0.3)
    begun = stage.now_s()
    stage.backend.dismiss(name, "not needed", kill=kill)
    assert stage.left(name).why == "not needed"
    assert stage.now_s() - begun < 4


def test_dismissed_before_it_came(begin: Begin) -> None:
    """A worker can be dismissed right after it was started."""
    stage = begin()
    name = stage.backend.start()
    stage.backend.dismiss(name, "not needed", kill=False)
    assert stage.left(name).why == "not needed"


def test_killed_at_work(begin: Begin) -> None:
    """A worker in the middle of something is ended at once where it must be."""
    stage = begin()
    (worker,) = stage.ready()
    stage.backend.send(worker.worker, loan(0), b"wait 30")
    stage.backend.poll(0.1)
    begun = stage.now_s()
    stage.backend.dismiss(worker.worker, "silent too long", kill=True)
    assert stage.left(worker.worker).why == "silent too long"
    assert stage.now_s() - begun < 4


def test_asked_to_leave(begin: Begin) -> None:
    """A worker that must go says so at once, finishes what it holds, and leaves when it is dismissed."""
    stage = begin()
    (worker,) = stage.ready()
    for number in range(2):
        stage.backend.send(worker.worker, loan(number), b"wait 0.3")
    stage.backend.poll(0.1)
    stage.ask_to_leave(worker)
    heard = stage.until(lambda reports: len(reports) == 3)
    assert isinstance(heard[0], Leaving) and heard[0].why
    assert [each.lease for each in of(Answer, heard)] == [loan(0), loan(1)]
    stage.backend.dismiss(worker.worker, "drained", kill=False)
    assert stage.left(worker.worker)


def test_what_is_sent_to_nobody_is_lost(begin: Begin) -> None:
    """Sending to, revoking from and dismissing a worker that is gone, or never was, does nothing."""
    stage = begin()
    (worker,) = stage.ready()
    stage.backend.dismiss(worker.worker, "enough", kill=True)
    stage.left(worker.worker)
    for name in (worker.worker, "nobody"):
        stage.backend.send(name, loan(0), b"echo x")
        stage.backend.revoke(name, loan(0))
        stage.backend.dismiss(name, "still", kill=True)
        stage.backend.dismiss(name, "still", kill=False)
    assert stage.backend.poll(0.1) == []


def test_sent_to_one_that_just_died(begin: Begin) -> None:
    """What is sent to a worker before its end was heard is lost without complaint, and its end is heard."""
    stage = begin()
    (worker,) = stage.ready()
    stage.kill(worker)
    for number in range(4):
        stage.backend.send(worker.worker, loan(number), b"echo x" + bytes(100_000))
    heard = stage.until(lambda reports: bool(of(Left, reports)))
    assert isinstance(heard[-1], Left)


def test_names_are_not_used_again(begin: Begin) -> None:
    """A new worker never gets the name of one that left."""
    stage = begin()
    (first,) = stage.ready()
    stage.backend.dismiss(first.worker, "next", kill=True)
    stage.left(first.worker)
    (second,) = stage.ready()
    assert second.worker != first.worker


class Ledger:
    """What each worker holds, as the contract has it; says where a backend breaks it."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.started: set[str] = set()
        self.ready: dict[str, Hello] = {}
        self.held: dict[str, set[Lease]] = {}
        self.dismissed: set[str] = set()

    def note(self, report: Report) -> None:
        """One more report."""
        name = report.worker
        assert name in self.started, f"{report} of one that left, or never was"
        match report:
            case Hello():
                assert name not in self.ready and name not in self.dismissed
                self.ready[name], self.held[name] = report, set()
            case Answer() | Failure() | Skip():
                self.held[name].remove(report.lease)
            case Leaving():
                assert name in self.ready
            case Left():
                self.started.remove(name)
                self.ready.pop(name, None)

    def usable(self) -> list[str]:
        """Workers that were not dismissed, in a fixed order."""
        return sorted(set(self.ready) - self.dismissed)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_to_workers(begin: Begin, seed: int) -> None:
    """Killed, dismissed, asked to go and replaced at random: no loan twice, none lost, no ghosts."""
    stage, chance, ledger = begin(slots=3), random.Random(seed), Ledger(3)
    for number in range(150):
        if len(ledger.started) < 4:
            ledger.started.add(stage.backend.start())
        for name in ledger.usable():
            while len(ledger.held[name]) < 3:
                lease = Lease("student", number, len(ledger.held[name]) + 3 * chance.randrange(10**6))
                stage.backend.send(name, lease, chance.choice([b"echo x", b"wait 0.01", b"fail x", b"size 90000 1"]))
                ledger.held[name].add(lease)
                if chance.random() < 0.2:
                    stage.backend.revoke(name, lease)
        if chance.random() < 0.1 and (names := ledger.usable()):
            name = chance.choice(names)
            match chance.randrange(3):
                case 0:
                    stage.kill(ledger.ready[name])
                case 1:
                    stage.ask_to_leave(ledger.ready[name])
                case 2:
                    stage.backend.dismiss(name, "by chance", kill=True)
                    ledger.dismissed.add(name)
        for report in stage.backend.poll(0.01):
            ledger.note(report)
    # Those that live give back all they hold; the others have left.
    for report in stage.until(lambda heard: settled(ledger, heard)):
        ledger.note(report)
    assert not any(ledger.held[name] for name in ledger.ready)


def settled(ledger: Ledger, heard: list[Report]) -> bool:
    """Whether, with these reports, every worker left or holds nothing."""
    left = {each.worker for each in of(Left, heard)}
    back = {(each.worker, each.lease) for each in heard if isinstance(each, Answer | Failure | Skip)}
    ready = set(ledger.ready) | {each.worker for each in of(Hello, heard)}
    waits = {(name, lease) for name in ledger.ready for lease in ledger.held[name]}
    return ledger.started - left <= ready - ledger.dismissed and all(
        name in left or (name, lease) in back for name, lease in waits
    )


def test_close_ends_all(begin: Begin) -> None:
    """Closing ends idle, busy and loading workers without a report; it may be done twice, and nothing starts after."""
    stage = begin()
    busy, _ = stage.ready(2)
    stage.backend.send(busy.worker, loan(0), b"wait 30")
    stage.backend.start()
    stage.backend.close()
    stage.backend.close()
    stage.backend.wake()
    stage.backend.send(busy.worker, loan(1), b"echo x")
    assert stage.backend.poll(0.1) == []
    with pytest.raises(StillhouseError):
        stage.backend.start()

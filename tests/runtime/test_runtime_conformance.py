"""What holds for every backend: loans and answers. ``stages.py`` has the backends, ``acting.py`` the workers."""

from __future__ import annotations

import threading

from stillhouse.runtime.backend import Answer, Failure, Hello, Skip
from stillhouse.runtime.work import Lease

from .acting import FACTS
from .loans import Begin, bare, loan, of


def test_start_then_hello(begin: Begin) -> None:
    """A started worker says hello under its name, with its facts and slots."""
    stage = begin(slots=3)
    name = stage.backend.start()
    (hello,) = stage.until(bool)
    assert isinstance(hello, Hello)
    assert (hello.worker, hello.slots) == (name, 3)
    assert hello.facts.items() >= FACTS.items()
    assert stage.backend.placed(name)


def test_loans_are_worked_off_in_order(begin: Begin) -> None:
    """A worker answers loans in the order they were sent, each with what it asked for."""
    stage = begin(slots=8)
    (worker,) = stage.ready()
    for number in range(8):
        stage.backend.send(worker.worker, loan(number), f"echo {number}".encode())
    heard = stage.until(lambda reports: len(reports) == 8)
    assert bare(heard) == [Answer(worker.worker, loan(number), str(number).encode()) for number in range(8)]


def test_every_loan_comes_back_once(begin: Begin) -> None:
    """With several workers, each loan comes back exactly once, from the worker it was sent to."""
    stage = begin(slots=2)
    workers = [hello.worker for hello in stage.ready(3)]
    due, heard = {}, []
    for turn in range(10):
        for worker in workers:
            for each in range(2):
                lease = Lease(worker, 2 * turn + each, 1)
                stage.backend.send(worker, lease, b"fail so it is" if turn % 3 == each else b"echo x")
                due[lease] = worker
        heard += stage.until(lambda reports: len(reports) == 6)
    assert {each.lease: each.worker for each in heard} == due
    assert len(heard) == len(due)
    assert stage.backend.poll(0.1) == []


def test_an_answer_says_what_it_took(begin: Begin) -> None:
    """The worker's own time for a loan: not its time in line behind another one."""
    stage = begin()
    (worker,) = stage.ready()
    for number in range(2):
        stage.backend.send(worker.worker, loan(number), b"wait 0.5")
    spent = [each.spent_s for each in stage.until(lambda reports: len(reports) == 2) if isinstance(each, Answer)]
    assert [each is not None and 0.45 < each < 0.95 for each in spent] == [True, True], spent


def test_failure_is_told_and_work_goes_on(begin: Begin) -> None:
    """An error in one answer is told with type and message, and the worker answers the next loan."""
    stage = begin()
    (worker,) = stage.ready()
    stage.backend.send(worker.worker, loan(0), b"fail cold feet")
    stage.backend.send(worker.worker, loan(1), b"echo warm")
    failure, answer = bare(stage.until(lambda reports: len(reports) == 2))
    assert failure == Failure(worker.worker, loan(0), "RuntimeError: cold feet")
    assert answer == Answer(worker.worker, loan(1), b"warm")


def test_a_long_story_is_told_in_short(begin: Begin) -> None:
    """An error whose message is megabytes long is told all the same, and the worker goes on."""
    stage = begin()
    (worker,) = stage.ready()
    stage.backend.send(worker.worker, loan(0), b"fail " + b"x" * 3_000_000)
    stage.backend.send(worker.worker, loan(1), b"echo on")
    failure, answer = bare(stage.until(lambda reports: len(reports) == 2))
    assert isinstance(failure, Failure) and failure.why.startswith("RuntimeError: xxx") and len(failure.why) < 100_000
    assert answer == Answer(worker.worker, loan(1), b"on")


def test_revoked_loan_is_skipped(begin: Begin) -> None:
    """A loan that is revoked before it began is skipped; one that began is answered; neither comes back twice."""
    stage = begin()
    (worker,) = stage.ready()
    for number in range(4):
        stage.backend.send(worker.worker, loan(number), b"wait 0.2")
    stage.backend.poll(0.1)
    stage.backend.revoke(worker.worker, loan(0))
    stage.backend.revoke(worker.worker, loan(2))
    stage.backend.revoke(worker.worker, loan(77))
    heard = stage.until(lambda reports: len(reports) == 4)
    assert of(Skip, heard) == [Skip(worker.worker, loan(2))]
    assert [each.lease for each in of(Answer, heard)] == [loan(0), loan(1), loan(3)]
    assert stage.backend.poll(0.1) == []


def test_revoked_too_late(begin: Begin) -> None:
    """Revoking a loan that came back already changes nothing."""
    stage = begin()
    (worker,) = stage.ready()
    stage.backend.send(worker.worker, loan(0), b"echo x")
    stage.until(bool)
    stage.backend.revoke(worker.worker, loan(0))
    stage.backend.send(worker.worker, loan(1), b"echo y")
    assert bare(stage.until(bool)) == [Answer(worker.worker, loan(1), b"y")]


def test_poll_waits_as_long_as_told(begin: Begin) -> None:
    """Where nothing happens, poll returns nothing after its time, and with no time at once."""
    stage = begin()
    for timeout_s in (0.0, 0.2):
        begun = stage.now_s()
        assert stage.backend.poll(timeout_s) == []
        assert timeout_s <= stage.now_s() - begun < timeout_s + 2


def test_poll_can_be_woken(begin: Begin) -> None:
    """Another thread ends a wait; a wake that came before it counts once."""
    stage = begin()
    begun = stage.now_s()
    timer = threading.Timer(0.1, stage.backend.wake)
    timer.start()
    assert stage.backend.poll(20) == []
    timer.join()
    stage.backend.wake()
    assert stage.backend.poll(20) == []
    assert stage.now_s() - begun < 41


def test_many_workers(begin: Begin) -> None:
    """Eight workers have eight names; all of them work."""
    stage = begin()
    workers = [hello.worker for hello in stage.ready(8)]
    assert len(set(workers)) == 8
    for number, worker in enumerate(workers):
        stage.backend.send(worker, loan(number), b"echo x")
    heard = stage.until(lambda reports: len(reports) == 8)
    assert {(each.worker, each.lease) for each in of(Answer, heard)} == set(
        zip(workers, map(loan, range(8)), strict=True)
    )


def test_answers_of_any_length(begin: Begin) -> None:
    """Answers of 0 bytes to 5 MB come whole, and stay what they were while others come."""
    stage = begin(slots=2)
    (worker,) = stage.ready()
    sizes = [0, 1, 4096, 512_000, 0, 5_000_000, 3, 512_000, 5_000_000]
    payloads = []
    for number, size in enumerate(sizes):
        stage.backend.send(worker.worker, loan(number), f"size {size} {number}".encode())
        (answer,) = stage.until(bool)
        assert isinstance(answer, Answer) and answer.lease == loan(number)
        payloads.append(answer.payload)
    assert [bytes(each) for each in payloads] == [bytes([number]) * size for number, size in enumerate(sizes)]


def test_loans_of_any_length(begin: Begin) -> None:
    """A loan may carry megabytes, and nothing."""
    stage = begin()
    (worker,) = stage.ready()
    text = bytes(range(48, 58)) * 400_000
    stage.backend.send(worker.worker, loan(0), b"echo " + text)
    stage.backend.send(worker.worker, loan(1), b"")
    heard = stage.until(lambda reports: len(reports) == 2)
    assert [bytes(each.payload) for each in of(Answer, heard)] == [text, b""]

"""What a student can see of its questions while it waits."""

from __future__ import annotations

from functools import partial

from stillhouse.runtime.asker import Loan, Outcome, Payload, Question
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.driver import Driver
from stillhouse.runtime.scaling.policy import Policy
from stillhouse.runtime.simulated.backend import Simulated
from stillhouse.runtime.simulated.weather import Kind, Weather

from .driven import TEACHER, VirtualClock, gate


def test_answers_that_came_out_of_turn_are_at_hand() -> None:
    """Behind a first question that nobody answers, all that a faster worker answered can be had, in order."""
    clock = VirtualClock()
    kinds = [Kind(1000.0, load_s=0.1, facts=TEACHER), Kind(0.01, load_s=0.1, facts=TEACHER)]
    backend = Simulated(clock, kinds, Weather(), 0, lambda payload: 1.0, bytes)
    settings = Settings(window_bytes=10**6, lease_min_s=10**6, hedge_factor=1e9)
    driver = Driver(backend, settings, Policy(2, 2), gate, lambda: None, clock)
    asker = driver.asker("student")

    def answer(number: int) -> Payload:
        return bytes([number])

    for number in range(6):
        pack = partial(lambda number, facts: bytes([number]), number)
        asker.ask(Question(1, 1, pack, partial(answer, number), lambda payload: ""))
    assert asker.at_hand() == {}
    for _ in range(40):
        driver.turn(0.1)
    found = asker.at_hand()
    taken = []
    while isinstance(outcome := asker.take(0.0), Outcome):
        taken.append(outcome.number)
    assert len(found) >= 4 and list(found) == sorted(found) and set(taken) < set(found)
    assert all(payload == bytes([number]) for number, payload in found.items())
    driver.close()


def test_a_loan_that_can_t_be_answered_goes_back() -> None:
    """A student that gives back what it was lent is lent nothing more, and a worker answers."""
    clock = VirtualClock()
    backend = Simulated(clock, [Kind(0.01, load_s=5.0, facts=TEACHER)], Weather(), 0, lambda payload: 1.0, bytes)
    driver = Driver(backend, Settings(window_bytes=10**6), Policy(1, 1), gate, lambda: None, clock)
    asker = driver.asker("student")
    asker.ask(Question(1, 1, lambda facts: b"x", lambda: None, lambda payload: ""))
    assert asker.take(0.0, helps=True) is None
    driver.turn(0.0)
    loan = asker.take(0.0)
    assert isinstance(loan, Loan)
    asker.settle(loan, loan.question.answer())
    while not isinstance(found := asker.take(0.0), Outcome):
        assert found is None and clock() < 20.0
        driver.turn(0.5)
    assert found.payload == b"x" and clock() >= 5.0
    driver.close()

"""A student's own pace, measured: what counts as a step, what as a pause, and when it asks no more."""

from __future__ import annotations

import pytest

from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.driver import Notice
from stillhouse.runtime.scaling.policy import Policy
from stillhouse.runtime.simulated.weather import Kind, Weather
from stillhouse.runtime.steps import PAUSE, Steps

from .driven import NO_TIME_S, TEACHER, Life, question


@pytest.mark.parametrize("bunch", [1, 5])
def test_a_pause_is_no_step(bunch: int) -> None:
    """A validation is not the student's pace, though answers are taken in bunches; a slower pace soon is."""
    steps = Steps()
    for number in range(100):
        steps.took(0.2 if number % bunch == 0 else 0.0)
    assert steps.paused_s(1.5) == 0.0 and steps.paused_s(10.0) == pytest.approx(9.8)
    steps.took(10.0)
    assert steps.paused_s(0.0) == pytest.approx(9.8)
    for _ in range(30):
        steps.took(2.0)
    before = steps.paused_s(0.0)
    steps.took(2.0)
    assert before == steps.paused_s(0.0) < 9.8 + 30 * 2.0
    assert PAUSE * 0.2 < 2.0


class Student:
    """One that trains beside a fleet of one to four, in steps of 0.145 s."""

    def __init__(self) -> None:
        kind = Kind(0.05, load_s=3.0, facts=TEACHER)
        self.life = Life([], [kind], Weather(), policy=Policy(1, 4), settings=Settings(window_bytes=400))
        self.asker = self.life.driver.asker("s")
        self.asked = 0

    def rest(self, seconds: float) -> None:
        until_s = self.life.clock() + seconds
        while self.life.clock() < until_s - 1e-9:
            self.life.turn(min(0.5, until_s - self.life.clock()))

    def take(self) -> None:
        while self.asker.take(NO_TIME_S) is None:
            self.rest(0.02)

    def train(self, seconds: float) -> None:
        until_s = self.life.clock() + seconds
        while self.life.clock() < until_s:
            while self.asker.fits(8):
                self.asker.ask(question("s", self.asked, 8))
                self.asked += 1
            self.take()
            self.rest(0.145)

    def scaled(self) -> list[Notice]:
        return [notice for notice in self.life.notices if notice.kind == "scaled"]


def test_a_validation_lets_nobody_go() -> None:
    """A student that validates after each epoch needs afterwards what it needed before: the fleet stays."""
    student = Student()
    student.train(60.0)
    assert student.life.driver.workers_ready == 3
    before = len(student.scaled())
    for _ in range(4):
        student.rest(12.0)
        student.train(60.0)
    student.rest(60.0)
    assert [notice.text for notice in student.scaled()[before:]] == []


def test_a_fleet_that_nobody_asks_shrinks() -> None:
    """When all is stored only the minimum is kept; what is asked later is answered, by as many as it takes."""
    student = Student()
    student.train(60.0)
    while student.asker.open:
        student.take()
        student.rest(0.145)
    student.rest(120.0)
    assert student.life.driver.workers_ready == 1
    student.train(120.0)
    assert student.life.driver.workers_ready >= 3

"""A fluid model of students and teachers under a scaling policy, on a virtual clock: rates instead of items.

Units flow from workers into buffers and from there into students. Workers load, become ready, die, freeze; on limited
cores they slow each other down. What the policy is shown is measured as a driver would: over a recent window.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from stillhouse.runtime.scaling.memory import Memory
from stillhouse.runtime.scaling.policy import Decision, Grow, Policy, RunInline, Shrink, Stay, StopInline
from stillhouse.runtime.scaling.view import ConsumerView, FleetView, State, WorkerView

RECENT_S = 5.0
DRAIN_S = 2.0


@dataclass
class Student:
    rate: float
    window: float
    buffered: float = 0.0
    starved_share: float = 0.0
    waiting: bool = True


@dataclass
class Teacher:
    name: str
    speed: float
    ready_s: float
    state: State = "loading"
    until_s: float = float("inf")
    busy_share: float = 0.0


@dataclass
class World:
    """The state of everything, and what happened.

    Attributes:
        speeds: units/s of the workers in the order they start, over and over.
        cores: no more workers' worth of work is done at once.
        inline_pace_s: seconds a unit; None: students can't answer themselves.
        noise: relative error of each measured pace.
    """

    policy: Policy
    students: list[Student]
    speeds: Sequence[float]
    start_s: float = 5.0
    cores: float = float("inf")
    inline_pace_s: float | None = None
    noise: float = 0.0
    seed: int = 0
    step_s: float = 1.0
    now_s: float = 0.0
    fatal_starts: bool = False
    teachers: list[Teacher] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    inline: bool = False
    started: int = 0
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    taken: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    @property
    def demand(self) -> float:
        return sum(student.rate for student in self.students)

    def ready(self) -> list[Teacher]:
        return [teacher for teacher in self.teachers if teacher.state == "ready"]

    def slowdown(self) -> float:
        return min(1.0, self.cores / max(1, len(self.ready())))

    @property
    def rate(self) -> float:
        return sum(teacher.speed for teacher in self.ready()) * self.slowdown()

    def changes(self, since_s: float = 0.0) -> list[Decision]:
        return [each for at, each in self.decisions if at >= since_s and not isinstance(each, Stay)]

    def kill(self, number: int) -> None:
        """A worker dies; which one by number."""
        if self.teachers:
            del self.teachers[number % len(self.teachers)]

    def freeze(self, number: int, seconds: float) -> None:
        """A ready worker is silent for a while."""
        if ready := self.ready():
            teacher = ready[number % len(ready)]
            teacher.state, teacher.until_s = "suspect", self.now_s + seconds

    def step(self) -> Decision:
        """Let time pass, decide, carry it out."""
        self._live()
        self._flow()
        view = self.view()
        decision, self.memory = self.policy.decide(view, self.memory, self.now_s)
        self.decisions.append((self.now_s, decision))
        self._carry_out(decision)
        self.now_s += self.step_s
        return decision

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / self.step_s)):
            self.step()

    def view(self) -> FleetView:
        pending = sum(student.window - student.buffered for student in self.students)
        held = int(pending / max(1, len(self.ready())))
        workers = tuple(
            WorkerView(
                each.name,
                f"speed {each.speed:g}",
                each.state,
                None if each.state == "loading" else self._measured(1.0 / (each.speed * self.slowdown())),
                each.busy_share,
                held if each.state == "ready" else 0,
            )
            for each in self.teachers
        )
        consumers = tuple(
            ConsumerView(str(n), each.rate, int(each.buffered), int(each.window), each.waiting, each.starved_share)
            for n, each in enumerate(self.students)
        )
        start_s = self.start_s if self.ready() else None
        return FleetView(workers, consumers, int(pending), self.inline_pace_s, start_s)

    def _measured(self, value: float) -> float:
        return value * (1.0 + self.noise * self.random.uniform(-1.0, 1.0))

    def _live(self) -> None:
        for teacher in list(self.teachers):
            if teacher.state == "loading" and self.now_s >= teacher.ready_s:
                if self.fatal_starts:
                    self.teachers.remove(teacher)
                teacher.state = "ready"
            elif teacher.state == "suspect" and self.now_s >= teacher.until_s:
                teacher.state = "ready"
            elif teacher.state == "draining" and self.now_s >= teacher.until_s:
                self.teachers.remove(teacher)

    def _flow(self) -> None:
        possible = self.rate * self.step_s
        pending = {id(each): each.window - each.buffered for each in self.students}
        made = min(possible, sum(pending.values()) + self.demand * self.step_s)
        for student in self.students:
            wanted = student.rate * self.step_s
            weight = (pending[id(student)] + wanted) / (sum(pending.values()) + self.demand * self.step_s)
            there = student.buffered + made * weight
            took = min(wanted, there)
            student.buffered = min(student.window, there - took)
            starved = 1.0 - took / wanted
            student.waiting = starved > 1e-6
            student.starved_share += (starved - student.starved_share) * min(1.0, self.step_s / RECENT_S)
            if self.inline and self.inline_pace_s:
                took += starved * self.step_s / (1.0 / student.rate + self.inline_pace_s)
            self.taken += took
        busy = made / possible if possible else 0.0
        for teacher in self.ready():
            teacher.busy_share += (busy - teacher.busy_share) * min(1.0, self.step_s / RECENT_S)

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Grow(count=count):
                for _ in range(count):
                    speed = self.speeds[self.started % len(self.speeds)]
                    self.started += 1
                    self.teachers.append(Teacher(f"w{self.started:04}", speed, self.now_s + self.start_s))
            case Shrink(worker=name):
                teacher = next(each for each in self.teachers if each.name == name)
                teacher.state, teacher.until_s = "draining", self.now_s + DRAIN_S
            case RunInline():
                self.inline = True
            case StopInline():
                self.inline = False

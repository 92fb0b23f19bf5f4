"""Students of one training in numbers: what is told of each, and how seldom."""

from __future__ import annotations

from stillhouse.foundation.events import GroupMeasured, StudentMeasured
from stillhouse.runner.roll import Roll


class Scene:
    """Two students by hand, who take 8 and 24 samples of each step, and a clock that is set."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.roll = Roll("student", {"a": 8, "b": 24}, 40, lambda: self.now_s)

    def begun(self) -> GroupMeasured | None:
        """Both are there and train."""
        for number, name in enumerate("ab"):
            self.roll.came(name, "here", 11 + number)
            self.roll.took(name, 40, 1.0)
        self.now_s += 1.0
        return self.roll.news()

    def states(self) -> list[str]:
        told = self.roll.news()
        return [] if told is None else [each.state for each in told.students]


def test_each_is_told_from_its_start_to_its_end() -> None:
    """Who is not there yet starts, then loads, trains and is done; each change is told at once, and nothing twice."""
    scene = Scene()
    assert scene.states() == ["starting", "starting"] and scene.states() == []
    scene.roll.came("b", "here", 12)
    assert scene.states() == ["starting", "loading"]
    scene.roll.came("a", "here", 11)
    scene.roll.took("a", 40, 0.0)
    assert scene.states() == ["training", "loading"]
    scene.roll.took("b", 41, 0.0)
    scene.roll.ended("b")
    told = scene.roll.news()
    assert told is not None and told.students[1][:4] == ("here", 12, "done", 42)


def test_rates_are_of_the_time_since_the_event_before() -> None:
    """Samples of its own share a second, and the share of the time that it waited for them."""
    scene = Scene()
    scene.begun()
    scene.now_s += 1.0
    scene.roll.took("a", 45, 2.0)
    assert scene.roll.news() is None, "too soon"
    scene.now_s += 1.0
    for name in "ab":
        scene.roll.took(name, 50, 2.0)
    told = scene.roll.news()
    assert told is not None and (told.phase, told.seconds) == ("student", 2.0)
    assert told.students == (
        StudentMeasured("here", 11, "training", 50, 40.0, 0.5),
        StudentMeasured("here", 12, "training", 50, 120.0, 0.5),
    )
    scene.now_s += 0.003
    scene.roll.ended("a")
    last = scene.roll.news()
    assert last is not None and last.students[0] == StudentMeasured("here", 11, "done", 51, 40.0, 0.5)


def test_who_does_not_move_is_not_told_again() -> None:
    """Students that wait for an hour fill no file."""
    scene = Scene()
    scene.begun()
    scene.now_s += 3600.0
    assert scene.roll.news() is None

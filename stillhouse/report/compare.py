"""Teacher, student and control side by side: the same rows for the terminal and for the page.

The control is the same network as the student, so what it costs is the student's; only what it learned differs.
A ratio is told from the student's side and never flattered: a student that is larger or slower is said to be so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stillhouse.foundation.words import printable
from stillhouse.report.labels import store_line
from stillhouse.report.numbers import (
    MISSING,
    TIMES,
    count,
    dig,
    energy,
    figure,
    listed,
    milliseconds,
    percent,
    points,
    seconds,
    size,
    three_digits,
)
from stillhouse.report.waiting import wait_line

EACH_SEED = "Each seed"
EACH_TEACHER = "Each teacher"
_SAME = "same"


@dataclass(frozen=True)
class Row:
    """One line of the table, ready to print."""

    label: str
    teacher: str
    student: str
    control: str
    ratio: str


@dataclass(frozen=True)
class KeyFigure:
    """A figure for the top of the page: ``12.3x`` ``fewer parameters`` ``8.1 k instead of 99.8 k``."""

    value: str
    what: str
    detail: str


@dataclass(frozen=True)
class _Cost:
    key: str
    label: str
    show: Callable[[float | None], str]
    noun: str
    less: str
    more: str


_COSTS = (
    _Cost("params", "Parameters", count, "parameters", "fewer", "more"),
    _Cost("macs", "Multiply-adds", count, "multiply-adds", "fewer", "more"),
    _Cost("bytes", "Weights", size, "weights", "smaller", "larger"),
    _Cost("peak_bytes", "Peak memory", size, "memory", "less", "more"),
    _Cost("latency_ms", "Latency, one sample", milliseconds, "latency", "smaller", "larger"),
)


def verdict(result: Mapping[str, Any]) -> str:
    """The verdict's sentence, or the plain fact where a run has none."""
    words = dig(result, "verdict", "words")
    accuracy = figure(result, "student", "accuracy")
    return str(words) if words else f"The student reached {percent(accuracy)} on the test samples."


def rows(result: Mapping[str, Any]) -> list[Row]:
    """The table's rows; a row whose figures are all missing is left out."""
    has_control = dig(result, "control") is not None
    teacher, student = figure(result, "teacher", "accuracy"), figure(result, "student", "accuracy")
    control = percent(figure(result, "control", "accuracy"))
    difference = None if teacher is None or student is None else student - teacher
    table = [Row("Test accuracy", percent(teacher), percent(student), control, points(difference))]
    table.append(Row("95 % interval", _interval(result, "teacher"), _interval(result, "student"), MISSING, MISSING))
    if max(len(listed(result, role, "seeds")) for role in ("student", "control")) > 1:
        table.append(Row(EACH_SEED, MISSING, _seeds(result, "student"), _seeds(result, "control"), MISSING))
    if listed(result, "teacher", "members"):
        table.append(Row(EACH_TEACHER, _members(result), MISSING, MISSING, MISSING))
    for cost in _COSTS:
        large, small = figure(result, "teacher", cost.key), figure(result, "student", cost.key)
        same = _SAME if has_control and small is not None else MISSING
        ratio = " ".join(_factor(cost, large, small)) or MISSING
        table.append(Row(cost.label, cost.show(large), cost.show(small), same, ratio))
    return [row for row in table if (row.teacher, row.student) != (MISSING, MISSING)]


def key_figures(result: Mapping[str, Any]) -> list[KeyFigure]:
    """The few figures that say what the student is worth: what it saves, then what that costs."""
    found: list[KeyFigure] = []
    for cost in (_COSTS[0], _COSTS[-1]):
        large, small = figure(result, "teacher", cost.key), figure(result, "student", cost.key)
        if factor := _factor(cost, large, small):
            value, what = (factor[0], f"{factor[1]} {cost.noun}") if len(factor) == 2 else ("Equal", cost.noun)
            found.append(KeyFigure(value, what, f"{cost.show(small)} instead of {cost.show(large)}"))
    student = figure(result, "student", "accuracy")
    against = {"teacher": "accuracy against the teacher", "control": "against training without the teacher"}
    for role, what in against.items():
        other = figure(result, role, "accuracy")
        if student is not None and other is not None:
            mine = student
            if role == "control":
                seeds = [each for each in listed(result, "student", "seeds") if isinstance(each, int | float)]
                mine = sum(seeds) / len(seeds) if seeds else student
            told = figure(result, "verdict", "difference") if role == "control" else None
            difference = mine - other if told is None else told
            found.append(KeyFigure(points(difference), what, f"{percent(mine)} against {percent(other)}"))
    return found


def terminal_table(result: Mapping[str, Any]) -> Table:
    """The rows as a table for the terminal, 80 wide; the control's column only where there is one."""
    has_control = dig(result, "control") is not None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for name in ("teacher", "student", *(("control",) if has_control else ())):
        table.add_column(name, justify="right", style="bold" if name == "student" else "")
    table.add_column("against teacher", style="dim")
    for row in (row for row in rows(result) if row.label not in (EACH_SEED, EACH_TEACHER)):
        cells = [row.label, row.teacher, row.student, *([row.control] if has_control else []), row.ratio]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def print_result(result: Mapping[str, Any], folder: Path, console: Console) -> None:
    """The whole answer on one screen: the verdict first, then the table, warnings, and where to go on."""
    console.print()
    console.print(Text(verdict(result), style="bold"))
    console.print()
    console.print(terminal_table(result))
    console.print()
    for label, told in (("Student waited", wait_line(result)), ("Label store", store_line(result))):
        if told:
            console.print(Text(f"{label:<15}{told}", style="dim"))
    joules, source = figure(result, "energy", "joules"), dig(result, "energy", "source")
    took = f"{seconds(figure(result, 'wall_s'))} in all"
    if joules is not None:
        took += f", {energy(joules)} ({source})"
    console.print(Text(took, style="dim"))
    for warning in listed(result, "warnings"):
        console.print(Text(printable(f"warning: {warning}"), style="yellow"))
    console.print(Text(f"report: {folder / 'report.html'}"), soft_wrap=True)


def _factor(cost: _Cost, teacher: float | None, student: float | None) -> tuple[str, ...]:
    """("12.3x", "fewer parameters"), ("the same",), or nothing where a figure is missing."""
    if not teacher or not student or teacher < 0 or student < 0:
        return ()
    ratio = teacher / student
    if 0.995 < ratio < 1.005:
        return ("the same",)
    return (f"{_short(max(ratio, 1 / ratio))}{TIMES}", cost.less if ratio > 1 else cost.more)


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 1.1 else f"{ratio:.1f}" if ratio < 100 else three_digits(ratio)


def _interval(result: Mapping[str, Any], role: str) -> str:
    low, high = figure(result, role, "accuracy_low"), figure(result, role, "accuracy_high")
    if low is None or high is None:
        return MISSING
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def _members(result: Mapping[str, Any]) -> str:
    """What each of several teachers gets right alone; of a specialist, among its own classes."""
    said, classes = [], len(listed(result, "data", "classes"))
    for each in listed(result, "teacher", "members"):
        few = "" if dig(each, "classes") in (None, classes) else f" of {dig(each, 'classes')} classes"
        said.append(percent(figure(each, "accuracy")) + few)
    return ", ".join(said)


def _seeds(result: Mapping[str, Any], role: str) -> str:
    found = [each for each in listed(result, role, "seeds") if isinstance(each, int | float)]
    seeds = [percent(each).removesuffix(" %") for each in found]
    return f"{', '.join(seeds)} %" if seeds else MISSING

"""Trials as figures: the best so far against what was spent, and each trial from rung to rung."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from stillhouse.report.draw import COLOURS, Drawing, canvas, to_svg
from stillhouse.report.numbers import dig, figure, grouped, listed, percent

LEGEND: Final = [("student", "reached the highest rung"), ("muted", "others"), ("evaluate", "best at the highest rung")]

Values = Mapping[str, Any]


def draw_best(events: Sequence[Values]) -> Drawing | None:
    """Values of all rungs in the order in which they came, and the best at the highest one; None before the first."""
    points, spent, begun = _points(events)
    if not points:
        return None
    top = max(each.epochs for each in points)
    best: list[_Point] = []
    for each in points:
        if each.epochs == top:
            best.append(each._replace(value=max(each.value, best[-1].value if best else 0.0)))
    title = f"After {grouped(spent)} epochs of training the best family gets {percent(best[-1].value)} right."
    description = f"Accuracy against epochs trained in all. Best after {_epochs(top)}: " + ", ".join(
        f"{percent(each.value)} after {each.spent:g} ({each.begun} trials begun)" for each in _rising(best)
    )
    with canvas("search-best", 4.0) as figure_:
        rows = figure_.subplots(2, 1, sharey=True)
        ends = (float(begun), spent)
        words = ("trials begun", "epochs trained, all trials together")
        for axes, name, end, label in zip(rows, ("begun", "spent"), ends, words, strict=True):
            for on, colour in ((False, "muted"), (True, "student")):
                own = [each for each in points if (each.epochs == top) == on]
                axes.plot([getattr(each, name) for each in own], [100 * each.value for each in own], linestyle="",
                          marker="o", markersize=4, color=COLOURS[colour], zorder=3)  # fmt: skip
            xs = [*(getattr(each, name) for each in best), end]
            ys = [100 * each.value for each in (*best, best[-1])]
            axes.step(xs, ys, where="post", color=COLOURS["evaluate"], linewidth=1.6, zorder=2)
            axes.set_xlabel(label)
            axes.set_ylabel("correct (%)")
        svg = to_svg(figure_, "search-best", description)
    note = f"Dots: a trial at a rung, the mean of its members; the line: the best after {_epochs(top)} each."
    return Drawing("search-best", title, description, note, svg)


class _Point(NamedTuple):
    """A trial at a rung: trials begun and epochs trained until then."""

    begun: int
    spent: float
    epochs: float
    value: float


def _points(events: Sequence[Values]) -> tuple[list[_Point], float, int]:
    """Every trial at every rung in the order in which they came; epochs trained, and trials begun, in all. What is told
    twice, by a process that was killed before its record had it, counts once.
    """
    found, spent, begun = dict[tuple[Any, Any], _Point](), 0.0, 0
    for event in events:
        epochs = figure(event, "trained_epochs") or 0.0
        if event["event"] == "TrialBegun":
            begun = max(begun, int(figure(event, "trial") or 0) + 1)
        elif event["event"] == "TrialEnded":
            spent += epochs
        elif event["event"] == "TrialReached" and (members := listed(event, "members")):
            place = event.get("trial"), event.get("rung")
            spent += 0.0 if place in found else epochs
            value = statistics.mean(map(float, members))
            found[place] = _Point(begun, spent, figure(event, "epochs") or 0.0, value)
    return list(found.values()), spent, begun


def draw_rungs(told: Values) -> Drawing | None:
    """A line for each trial, from rung to rung; None where none has two."""
    lines = [
        sorted((float(epochs), float(value)) for epochs, value in (dig(each, "rungs") or {}).items())
        for each in listed(told, "trials")
    ]
    top = max((line[-1][0] for line in lines if line), default=0.0)
    if not any(len(line) > 1 for line in lines):
        return None
    ends = [line for line in lines if line and line[-1][0] == top]
    begun = sum(bool(line) for line in lines)
    title = f"Of {begun} trials {len(ends)} {'was' if len(ends) == 1 else 'were'} trained for {_epochs(top)}."
    description = f"{title} They ended at {', '.join(percent(line[-1][1]) for line in ends)}."
    with canvas("search-rungs", 2.2) as figure_:
        axes = figure_.subplots()
        for line in lines:
            if line:
                on = line[-1][0] == top
                colour, order = COLOURS["student" if on else "muted"], 3 if on else 2
                xs, ys = [x for x, _ in line], [100 * y for _, y in line]
                axes.plot(xs, ys, color=colour, marker="o", markersize=3.5, linewidth=1.2, zorder=order)
        axes.set_xscale("log", base=2)
        ticks = sorted({x for line in lines for x, _ in line})
        axes.set_xticks(ticks, [f"{each:g}" for each in ticks])
        axes.minorticks_off()
        axes.set_xlabel("epochs of a trial")
        axes.set_ylabel("correct (%)")
        svg = to_svg(figure_, "search-rungs", description)
    return Drawing("search-rungs", title, description, "On the validation split.", svg)


def _epochs(count: float) -> str:
    return f"{count:g} epoch{'s' * (count != 1)}"


def _rising(best: Sequence[_Point]) -> list[_Point]:
    return [each for at, each in enumerate(best) if at == 0 or each.value > best[at - 1].value]

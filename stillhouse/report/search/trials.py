"""Trials as figures: the best so far against what was spent, and each trial from rung to rung."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from stillhouse.report.draw import COLOURS, Drawing, canvas, to_svg
from stillhouse.report.numbers import dig, figure, grouped, listed, percent

LEGEND: Final = [("student", "reached the highest rung"), ("muted", "others"), ("evaluate", "best at the highest rung")]

Values = Mapping[str, Any]


def draw_best(events: Sequence[Values]) -> Drawing | None:
    """Values of all rungs in the order in which they came, and the best at the highest one; None before the first."""
    spent, points = 0.0, list[tuple[float, float, float]]()
    for event in events:
        if event["event"] == "TrialEnded":
            spent += figure(event, "trained_epochs") or 0.0
        elif event["event"] == "TrialReached" and (members := listed(event, "members")):
            spent += figure(event, "trained_epochs") or 0.0
            points.append((spent, figure(event, "epochs") or 0.0, statistics.mean(map(float, members))))
    if not points:
        return None
    top = max(epochs for _, epochs, _ in points)
    best: list[tuple[float, float]] = []
    for at, epochs, value in points:
        if epochs == top:
            best.append((at, max(value, best[-1][1] if best else 0.0)))
    title = f"After {grouped(spent)} epochs of training the best family gets {percent(best[-1][1])} right."
    description = f"Accuracy against epochs trained in all. Best at {top:g} epochs: " + ", ".join(
        f"{percent(value)} after {at:g}" for at, value in _rising(best)
    )
    with canvas("search-best", 2.2) as figure_:
        axes = figure_.subplots()
        for on, colour in ((False, "muted"), (True, "student")):
            own = [(at, 100 * value) for at, epochs, value in points if (epochs == top) == on]
            axes.plot(*zip(*own, strict=True) if own else ([], []), linestyle="", marker="o", markersize=4,
                      color=COLOURS[colour], zorder=3)  # fmt: skip
        xs, ys = [at for at, _ in best] + [spent], [100 * value for _, value in best] + [100 * best[-1][1]]
        axes.step(xs, ys, where="post", color=COLOURS["evaluate"], linewidth=1.6, zorder=2)
        axes.set_xlabel("epochs trained, all trials together")
        axes.set_ylabel("correct (%)")
        svg = to_svg(figure_, "search-best", description)
    note = f"Dots: a trial at a rung, the mean of its members; the line: the best after {top:g} epochs each."
    return Drawing("search-best", title, description, note, svg)


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
    title = f"Of {begun} trials {len(ends)} were trained for {top:g} epochs."
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


def _rising(best: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [each for at, each in enumerate(best) if at == 0 or each[1] > best[at - 1][1]]

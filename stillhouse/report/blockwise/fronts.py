"""What accuracy costs: the best mixes for every budget by parameters, multiply-adds and latency, and the chosen one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from stillhouse.report.draw import COLOURS, Drawing, canvas, to_svg
from stillhouse.report.numbers import count, dig, figure, listed, milliseconds, percent, size
from stillhouse.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES: Final = {
    "params": ("parameters", count),
    "macs": ("multiply-adds", count),
    "latency_ms": ("latency", milliseconds),
}
LEGEND: Final = [("evaluate", "best mixes"), ("student", "chosen"), ("teacher", "teacher"), ("muted", "budget, dashed")]
_SHARE_MAX = 1.1
_KEEP = "keep"

Values = Mapping[str, Any]
Point = tuple[float, float]
"""Share of what the teacher costs, and accuracy: 0..1."""


def draw_fronts(told: Values) -> Drawing | None:
    """The figure; None where nothing is chosen yet.

    Args:
        told: the result's section ``blockwise``.
    """
    fronts = {name: _points(told, name, listed(told, "fronts", name)) for name in MEASURES}
    fronts = {name: points for name, points in fronts.items() if points}
    candidates = listed(told, "candidates")
    if not fronts or not candidates:
        return None
    chosen = {name: _points(told, name, candidates[:1]) for name in fronts}
    first, (share, accuracy) = next(((name, points[0]) for name, points in chosen.items() if points), ("", (0.0, 0.0)))
    if not first:
        return None
    of_what = f"{percent(share, 0)} of the {MEASURES[first][0]}"
    title = f"Put together, the chosen mix gets {percent(accuracy)} right with {of_what}."
    description = "Accuracy against cost as a share of the teacher's. " + " ".join(
        f"By {MEASURES[name][0]}: {', '.join(f'{percent(x, 0)} for {percent(y)}' for x, y in points)}."
        for name, points in fronts.items()
    )
    everything = [y for points in (*fronts.values(), *chosen.values()) for _, y in points]
    best = max(everything)
    bottom = max(min(everything), min(accuracy, best) - 4 * max(best - accuracy, 0.02)) - 0.01
    with canvas("fronts", 0.3 + 1.45 * len(fronts)) as figure_:
        rows = figure_.subplots(len(fronts), 1, sharey=True, squeeze=False)[:, 0]
        for axes, (name, points) in zip(rows, fronts.items(), strict=True):
            _panel(axes, points, chosen[name], _points(told, name, _kept(told)))
            if (limit := _share(told, name, figure(told, "limits", name))) is not None and limit <= _SHARE_MAX:
                axes.axvline(100 * limit, color=COLOURS["muted"], linewidth=1.0, linestyle=(0, (3, 3)), zorder=2)
            right = max([1.0, *(x for x, _ in (*points, *chosen[name]))])
            axes.set_xlim(0, 104 * right)
            axes.set_ylim(100 * bottom, 100 * min(best + 0.08 * (best - bottom), 1.004))
            axes.set_xlabel(f"{MEASURES[name][0]} (% of the teacher's)", labelpad=1)
            axes.locator_params(axis="y", nbins=4)
        figure_.supylabel("correct (%)", fontsize=11, color=COLOURS["muted"])
        svg = to_svg(figure_, "fronts", description)
    below = sum(y < bottom for points in fronts.values() for _, y in points)
    below_it = f" {below} cheaper ones lie below the frame." if below else ""
    note = "Mixes as they are put together, before any of it is trained further; on the samples for judging."
    return Drawing("fronts", title, description, note + below_it, svg)


def front_tables(told: Values) -> list[Table]:
    """The same in numbers, with the candidates."""
    tables = []
    whole = {name: figure(told, "whole", name) for name in ("params", "macs", "bytes", "latency_ms")}
    head = ["Mix", "Parameters", "Multiply-adds", "Weights", "Latency", "Harm expected", "Harm", "Correct", "Blocks"]
    named = {"Mixes that were compared, the chosen one first": listed(told, "candidates")}
    named |= {f"The front by {words}": listed(told, "fronts", name) for name, (words, _) in MEASURES.items()}
    for caption, points in named.items():
        rows = [[str(number), *_costs(each, whole), _names(each)] for number, each in enumerate(points, 1)]
        if rows:
            marked = frozenset([0]) if caption.startswith("Mixes") else frozenset[int]()
            tables.append(Table(caption, head, rows, marked, words=True))
    return tables


def _costs(each: Values, whole: Values) -> list[str]:
    costs = dig(each, "costs")
    shown = [count(figure(costs, "params")), count(figure(costs, "macs")), size(figure(costs, "bytes"))]
    harms = [f"{value:.3g}" if (value := figure(each, name)) is not None else "–" for name in ("expected", "harm")]
    return [*shown, milliseconds(figure(costs, "latency_ms")), *harms, percent(figure(each, "accuracy"))]


def _names(each: Values) -> str:
    """What stands for each block, front to back; equal neighbours once, with their number."""
    runs = [(name, len(list(group))) for name, group in itertools.groupby(map(str, listed(each, "mix")))]
    return ", ".join(f"{number} x {name}" if number > 1 else name for name, number in runs)


def _panel(axes: Axes, front: Sequence[Point], chosen: Sequence[Point], kept: Sequence[Point]) -> None:
    for points, colour, line, marker in (
        (sorted(front), "evaluate", "-", 3.5),
        (kept, "teacher", "", 7.0),
        (chosen, "student", "", 8.0),
    ):
        xs, ys = [100 * x for x, _ in points], [100 * y for _, y in points]
        axes.plot(xs, ys, color=COLOURS[colour], linestyle=line, marker="o", markersize=marker, linewidth=1.6, zorder=3)


def _points(told: Values, measure: str, mixes: Sequence[Values]) -> list[Point]:
    found = []
    for each in mixes:
        share, accuracy = _share(told, measure, figure(each, "costs", measure)), figure(each, "accuracy")
        if share is not None and accuracy is not None:
            found.append((share, accuracy))
    return found


def _share(told: Values, measure: str, value: float | None) -> float | None:
    whole = figure(told, "whole", measure)
    return value / whole if value is not None and whole else None


def _kept(told: Values) -> list[Values]:
    """The teacher itself among the mixes of the fronts."""
    mixes = [each for name in MEASURES for each in listed(told, "fronts", name)]
    return [each for each in mixes if set(listed(each, "mix")) == {_KEEP}][:1]

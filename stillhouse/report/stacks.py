"""Stacked bars, one for each epoch or group of epochs, as few and small shapes: one path a colour.

A first epoch that compiles may take a hundred times the others' time. Where a few bars would hide all others, the axis
ends above the others, and each of the few carries its height in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Final

from stillhouse.report.draw import COLOURS, canvas, to_svg
from stillhouse.report.epochs import Told

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Heights = Mapping[str, float]
_WIDTH: Final = 0.84
_CUT_FROM = 5.0


def drawn(
    name: str,
    description: str,
    bars: Sequence[Told],
    heights: Sequence[Heights],
    colours: Mapping[str, str],
    show: Callable[[float], str],
    unit: str,
) -> str:
    """An SVG of bars over their epochs; a single one lies on its side.

    Args:
        unit: of the heights, in words.
    """
    with canvas(name, 1.0 if len(bars) == 1 else 2.2) as figure:
        axes = figure.subplots()
        if len(bars) == 1:
            line(axes, heights[0], colours)
            axes.set_xlabel(unit)
        else:
            stack(axes, bars, heights, colours, show)
            axes.set_ylabel(f"{unit} an epoch")
        return to_svg(figure, name, description)


def stack(
    axes: Axes,
    bars: Sequence[Told],
    heights: Sequence[Heights],
    colours: Mapping[str, str],
    show: Callable[[float], str],
) -> None:
    """Draw bars over the epochs they tell of.

    Args:
        heights: of each bar's parts.
        colours: of the parts, lowest first: a name in :data:`stillhouse.report.draw.COLOURS`.
        show: a height in words, for bars that are cut off.
    """
    size = max(bar.last - bar.first + 1 for bar in bars)
    sums = [sum(each.values()) for each in heights]
    top, cut = _top(sums)
    bottoms = [0.0] * len(bars)
    for name, colour in colours.items():
        boxes = []
        for at, bar in enumerate(bars):
            if value := heights[at].get(name, 0.0):
                middle = (bar.first + bar.last) / 2
                half = _WIDTH * size / 2 if bar.last - bar.first + 1 == size else (bar.last - bar.first + _WIDTH) / 2
                boxes.append((middle - half, middle + half, bottoms[at], min(bottoms[at] + value, 1.1 * top)))
                bottoms[at] = boxes[-1][3]
        if boxes:
            fill(axes, boxes, COLOURS[colour])
    _axes(axes, bars, top)
    for at in cut:
        middle = (bars[at].first + bars[at].last) / 2
        near = (middle - 0.5) / bars[-1].last
        side = "left" if near < 0.15 else "right" if near > 0.85 else "center"
        place = 0.5 if side == "left" else bars[-1].last + 0.5 if side == "right" else middle
        axes.text(place, 1.03 * top, f"↑ {show(sums[at])}", ha=side, va="bottom", color=COLOURS["ink"])


def line(axes: Axes, heights: Heights, colours: Mapping[str, str]) -> None:
    """The one bar there is, lying."""
    left = 0.0
    for name, colour in colours.items():
        if value := heights.get(name, 0.0):
            fill(axes, [(left, left + value, -0.5, 0.5)], COLOURS[colour])
            left += value
    axes.set_xlim(0, left)
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([])
    axes.grid(False)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")


def _top(sums: Sequence[float]) -> tuple[float, list[int]]:
    """Where the axis ends, and the bars that are higher."""
    high = [at for at, value in enumerate(sums) if value > _CUT_FROM * median(sums)]
    rest = max((value for at, value in enumerate(sums) if at not in high), default=0.0)
    if not high or rest == 0 or len(high) > max(1, len(sums) // 20) or 1.25 * rest > min(sums[at] for at in high):
        return 1.05 * max(sums), []
    return 1.25 * rest, high


def fill(axes: Axes, boxes: Sequence[tuple[float, float, float, float]], colour: str, alpha: float = 1.0) -> None:
    """Rectangles (left, right, bottom, top) as one path."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners, codes = [], []
    for left, right, bottom, top in boxes:
        corners += [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
        codes += [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    axes.add_patch(PathPatch(Path(corners, codes), facecolor=colour, edgecolor="none", zorder=2, alpha=alpha))


def _axes(axes: Axes, bars: Sequence[Told], top: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.5, max(bars[-1].last, 4) + 0.5)
    axes.set_ylim(0, top)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")

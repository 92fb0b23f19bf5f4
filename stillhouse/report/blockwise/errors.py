"""Errors of all replacements while they trained: a small panel for each block, all on one logarithmic scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from stillhouse.report.blockwise.kinds import colour_of
from stillhouse.report.blockwise.read import KEEP
from stillhouse.report.draw import COLOURS, Drawing, canvas, epochs_axis, thin, to_svg
from stillhouse.report.numbers import three_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_MAX: Final = 24
_COLUMNS = 3
_NAME_MAX = 13
_POINTS_MAX = 60

Curve = list[tuple[float, float]]


def draw_errors(curves: Mapping[tuple[str, str], Curve], chosen: Mapping[str, str | None]) -> Drawing | None:
    """The figure; None where nothing was trained.

    Args:
        curves: (epoch, error) of each replacement, by names of block and replacement.
        chosen: what stands for each block, front to back; None: not known yet.
    """
    own = {block: {name: curve for (at, name), curve in curves.items() if at == block and curve} for block in chosen}
    own = {block: others for block, others in own.items() if others}
    if not own:
        return None
    left_out = max(len(own) - PANELS_MAX, 0)
    shown = dict(list(own.items())[:PANELS_MAX])
    ends = [others[name][-1][1] for block, others in own.items() if (name := chosen[block]) in others]
    what = "chosen replacements" if ends else "replacements"
    ends = ends or [curve[-1][1] for others in own.values() for curve in others.values()]
    title = f"The {what} ended with errors of {three_digits(min(ends))} to {three_digits(max(ends))}."
    description = f"Errors of replacements by epoch, a panel for each of {len(shown)} blocks. " + " ".join(
        f"{block}: {_told(others, chosen[block])}." for block, others in shown.items()
    )
    rows = -(-len(shown) // _COLUMNS)
    drawn = [error for others in shown.values() for curve in others.values() for _, error in curve if error > 0]
    least, most = min(drawn, default=0.1), max(min(max([1.2, *drawn]), 4.0), *ends)
    bottom, top = least / 1.3, most * 1.1
    with canvas("errors", 0.5 + 1.25 * rows) as figure:
        grid = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for axes, (block, others) in zip(grid.flat, shown.items(), strict=False):
            _panel(axes, others, chosen[block])
            kept = chosen[block] == KEEP
            axes.set_title(_short(block), pad=3, color=COLOURS["muted" if kept else "ink"])
            axes.set_ylim(bottom, top)
        figure.supxlabel("epoch", fontsize=11, color=COLOURS["muted"])
        figure.supylabel("error", fontsize=11, color=COLOURS["muted"])
        svg = to_svg(figure, "errors", description)
    note = "Squared error in units of the variance of the block's output: 1 is what its mean reaches, 0 a perfect copy."
    if any(chosen.values()):
        note += " The thick line was chosen; a block with a pale name keeps the teacher's own."
    more = f" {left_out} more blocks are in the table alone." if left_out else ""
    return Drawing("errors", title, description, note + more, svg)


def _panel(axes: Axes, others: Mapping[str, Curve], chosen: str | None) -> None:
    axes.set_yscale("log")
    for name, curve in others.items():
        mine = name == chosen
        (line,) = axes.plot(*thin(curve, _POINTS_MAX), color=COLOURS[colour_of(name)], zorder=4 if mine else 3)
        line.set(linewidth=2.6 if mine else 1.0, marker="o" if len(curve) == 1 else "", markersize=3)
    epochs_axis(axes, label=False)
    axes.locator_params(axis="x", nbins=3)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _told(others: Mapping[str, Curve], chosen: str | None) -> str:
    told = [f"{name} {three_digits(curve[-1][1])}" for name, curve in others.items()]
    return ", ".join(told) + (f"; {chosen} was chosen" if chosen else "")


def _short(name: str) -> str:
    """Its end: that is what tells blocks apart."""
    return name if len(name) <= _NAME_MAX else "…" + name[1 - _NAME_MAX :]


def trained(curves: Mapping[tuple[str, str], Curve]) -> Sequence[str]:
    """Names of the replacements that have a curve."""
    return [name for (_, name), curve in curves.items() if curve]

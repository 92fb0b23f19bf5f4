"""When each teacher worked and how it went, above the answers that lay ready and the student's waiting, on one axis.

At most :data:`ROWS_MAX` teachers have a row, those that answered most; stretches that look alike are one box, so that a
figure does not grow with its run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillhouse.report.draw import COLOURS, Drawing, canvas, thin, to_svg
from stillhouse.report.numbers import grouped, percent, seconds
from stillhouse.report.stacks import fill
from stillhouse.report.teachers import LOST, Teachers, Worker, merged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS_MAX: Final = 16
LEGEND = [
    ("teacher", "working; the paler, the less"),
    ("line", "loading; thin: no machine had room for it yet"),
    ("other", "suspect: it let its time pass"),
    ("bad", "lost, or failed to load"),
    ("student", "student waiting; pale: it answers itself then"),
]
_LEVELS = 4
_BOXES_MAX = 160
_UNITS = ((5400.0, 3600.0, "hours"), (300.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


def draw_timeline(found: Teachers) -> Drawing | None:
    """The figure; None where nothing was measured."""
    if found.span_s <= 0 or not found.workers:
        return None
    rows = shown(found)
    waited = sum(each.seconds * each.starved_share for each in found.readings) / found.span_s
    lost = len(found.lost)
    went = "none was lost" if not lost else f"{lost} {'was' if lost == 1 else 'were'} lost on the way"
    count = sum(each.views > 0 for each in found.workers)
    title = f"{count} teacher{'' if count == 1 else 's'} answered, {went}; the student waited {percent(waited, 0)}."
    description = (
        f"{seconds(found.span_s)} with teachers in processes of their own: a row for each, then the answers that lay "
        f"ready between their water marks, then the student's waiting, {percent(waited)} in all. "
        + " ".join(f"{each.name} {each.how} after {seconds(each.ended_s)}." for each in found.lost[:ROWS_MAX])
    )
    unit_s, unit = next((size, name) for least, size, name in _UNITS if found.span_s >= least)
    tall = 0.3 + 0.24 * len(rows)
    with canvas("teachers", tall + 2.4) as figure:
        above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=[tall, 1.0, 0.7])
        _workers(above, rows, found.span_s, unit_s)
        _buffer(middle, found, unit_s)
        _waiting(below, found, unit_s)
        for axes in (above, middle, below):
            _moments(axes, found, unit_s)
        below.set_xlim(0, found.span_s / unit_s)
        below.set_xlabel(f"{unit} since the first question")
        svg = to_svg(figure, "teachers", description)
    return Drawing("teachers", title, description, _note(found, len(rows)), svg)


def shown(found: Teachers) -> list[Worker]:
    """Those that have a row, in the order they came."""
    most = sorted(found.workers, key=lambda each: -each.views)[:ROWS_MAX]
    return [each for each in found.workers if any(each is other for other in most)]


def _workers(axes: Axes, rows: list[Worker], span_s: float, unit_s: float) -> None:
    boxes: dict[tuple[str, float], list[tuple[float, float, float, float]]] = {}
    looks = {"unplaced": ("line", 1.0), "loading": ("line", 1.0), "suspect": ("other", 1.0)}
    for row, worker in enumerate(rows):
        for each in merged(worker.stretches, span_s / _BOXES_MAX, _LEVELS):
            shade = 0.2 + 0.8 * round(each.busy_share * _LEVELS) / _LEVELS
            look = looks.get(each.kind, ("teacher", shade))
            half = 0.08 if each.kind == "unplaced" else 0.36
            end_s = each.end_s if worker.ended_s is None else min(each.end_s, worker.ended_s)
            if end_s > each.start_s:
                boxes.setdefault(look, []).append((each.start_s / unit_s, end_s / unit_s, row - half, row + half))
        if worker.how and worker.ended_s is not None:
            colour = COLOURS["bad" if worker.how in (*LOST, "failed") else "muted"]
            at = worker.ended_s / unit_s
            axes.plot([at, at], [row - 0.42, row + 0.42], color=colour, linewidth=2.4, zorder=4)
            axes.annotate(
                worker.how, (at, row), xytext=(4, 0), textcoords="offset points", va="center_baseline",
                color=COLOURS["ink"], annotation_clip=False, zorder=5,
            )  # fmt: skip
    for (colour, shade), several in boxes.items():
        fill(axes, several, COLOURS[colour], shade)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [each.name for each in rows])
    axes.grid(False)
    axes.tick_params(axis="x", length=0)


def _buffer(axes: Axes, found: Teachers, unit_s: float) -> None:
    readings = found.readings
    asking = [each for each in readings if each.asking]
    for curve, colour, width in (
        ([(each.at_s / unit_s, each.high) for each in asking], "muted", 1.0),
        ([(each.at_s / unit_s, each.low) for each in asking], "muted", 1.0),
        ([(each.at_s / unit_s, each.buffered) for each in readings], "teacher", 1.8),
    ):
        times, heights = thin(curve)
        dashes = "-" if colour == "teacher" else (0, (3, 2))
        axes.plot(times, heights, color=COLOURS[colour], linewidth=width, linestyle=dashes, zorder=3)
        if colour == "teacher":
            axes.fill_between(times, heights, color=COLOURS[colour], alpha=0.2, linewidth=0)
    most = max(each.buffered for each in readings)
    axes.set_ylim(0, 1.3 * max(most, 1.0) if _is_shallow(found) else 1.1 * max(most, *(each.high for each in readings)))
    axes.set_title("answers that lie ready (views)")
    axes.locator_params(axis="y", nbins=3)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.tick_params(axis="x", length=0)


def _is_shallow(found: Teachers) -> bool:
    """Whether so little lay ready that beside the water marks nothing could be seen."""
    return max(each.buffered for each in found.readings) < 0.2 * max(each.low for each in found.readings)


def _waiting(axes: Axes, found: Teachers, unit_s: float) -> None:
    own = [
        ((each.at_s - each.seconds) / unit_s, each.at_s / unit_s, 0.0, 100.0) for each in found.readings if each.inline
    ]
    if own:
        fill(axes, own, COLOURS["student"], 0.15)
    times, shares = thin([(each.at_s / unit_s, 100 * each.starved_share) for each in found.readings])
    axes.fill_between([0.0, *times], [0.0, *shares], step="pre", color=COLOURS["student"], linewidth=0, zorder=3)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100])
    axes.set_title("the student waits (% of its time)")


def _moments(axes: Axes, found: Teachers, unit_s: float) -> None:
    """Upright lines: a teacher was lost, another process of the run went on."""
    for worker in found.lost[:ROWS_MAX]:
        if worker.ended_s is not None:
            axes.axvline(worker.ended_s / unit_s, color=COLOURS["bad"], linewidth=0.9, zorder=3.5)
    for at_s in found.resumed_s:
        axes.axvline(at_s / unit_s, color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (1, 2)), zorder=3.5)


def _note(found: Teachers, rows: int) -> str:
    low, high = (
        grouped(max(values)) for values in zip(*((each.low, each.high) for each in found.readings), strict=True)
    )
    marks = f"{low} and {high} views"
    parts = [f"Water marks: {marks}, {'above the scale' if _is_shallow(found) else 'dashed'}."]
    if any(each.by_hand for each in found.workers):
        parts.append("joined-…: a person started it.")
    if found.own_views:
        parts.append(f"The student answered {grouped(found.own_views)} views itself while it waited.")
    if found.resumed_s:
        parts.append("Dotted: the run was resumed; (2), (3): teachers of its later processes.")
    if len(found.workers) > rows:
        parts.append(f"Shown are the {rows} of {len(found.workers)} teachers that answered most.")
    return " ".join(parts)

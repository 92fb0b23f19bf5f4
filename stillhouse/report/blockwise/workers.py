"""Who trained which blocks in processes of their own, and when they waited: a timeline and a table.

The time that counts is that in which workers told of themselves: what lies between two plans is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stillhouse.report.draw import COLOURS, Drawing, canvas, to_svg
from stillhouse.report.numbers import MISSING, figure, grouped, listed, percent, seconds, three_digits
from stillhouse.report.stacks import fill
from stillhouse.report.table import Table
from stillhouse.report.teachers import Stretch, merged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS_MAX: Final = 16
LEGEND: Final = [("teacher", "training, or the teacher's pass; the paler, the longer it waited for activations")]
_LEVELS = 4
_BOXES_MAX = 160
_NAME_MAX = 18


@dataclass
class BlockWorker:
    """One process of a plan. ``stretches`` on the time that all plans share, ``how`` it ended."""

    place: str
    blocks: str
    count: int
    step: float = 0.0
    stretches: list[Stretch] = field(default_factory=list)
    how: str = ""

    @property
    def seconds(self) -> float:
        """In which it told of itself."""
        return sum(each.end_s - each.start_s for each in self.stretches)

    @property
    def busy_s(self) -> float:
        """In which it did not wait."""
        return sum((each.end_s - each.start_s) * each.busy_share for each in self.stretches)


@dataclass
class BlockWorkers:
    """All of them, plan after plan; ``plans_s``: when each began; ``promises``: planned and measured seconds a step."""

    workers: list[BlockWorker] = field(default_factory=list)
    plans_s: list[float] = field(default_factory=list)
    span_s: float = 0.0
    lost: int = 0
    relayed: bool = False
    promises: list[tuple[float, float]] = field(default_factory=list)


def block_workers(events: Sequence[Mapping[str, Any]]) -> BlockWorkers:
    """What the events tell of them."""
    found, now, steps = BlockWorkers(), list[BlockWorker](), 0.0
    for event in events:
        kind = event["event"]
        if kind == "PhaseStarted":
            steps = figure(event, "steps") or 0.0
        elif kind == "BlocksPlanned":
            _end(now, "was planned anew")
            now = [_planned(each, figure(event, "step") or 0.0) for each in _rows(event, 5)]
            found.workers += now
            found.plans_s.append(found.span_s)
            found.relayed = bool(event.get("relayed"))
        elif kind == "BlocksMeasured":
            until_s = found.span_s + (figure(event, "seconds") or 0.0)
            for worker, (step, share) in zip(now, _rows(event, 2), strict=False):
                worker.step = float(step)
                worker.stretches.append(Stretch(found.span_s, until_s, "working", min(max(float(share), 0.0), 1.0)))
            found.span_s = until_s
        elif kind == "PlanMeasured":
            found.promises.append((figure(event, "planned_s") or 0.0, figure(event, "measured_s") or 0.0))
            _end(now, "trained to the end")
            for worker in now:
                worker.step = max(worker.step, steps)
            now = []
        elif kind == "BlockWorkersLost":
            found.lost += 1
            for worker in now:
                worker.step = max(worker.step, figure(event, "step") or 0.0)
            _end(now, f"begun again: {str(event.get('text') or '').partition(chr(10))[0]}")
            now = []
        elif kind == "RunStarted":
            _end(now, "the run was stopped")
            now = []
    _end(now, "was there to the last")
    return found


def draw_workers(found: BlockWorkers) -> Drawing | None:
    """The timeline; None where no worker told of itself."""
    seen = [each for each in found.workers if each.seconds > 0]
    shown = seen[:ROWS_MAX]
    if not shown:
        return None
    busy = sum(each.busy_s for each in seen) / sum(each.seconds for each in seen)
    lost = f", {found.lost} of them lost on the way" if found.lost else ""
    count = f"{len(seen)} worker{'s' if len(seen) > 1 else ''}"
    title = f"{count} trained the blocks{lost}; {percent(1 - busy, 0)} of the time went in waiting."
    told = " ".join(f"{each.blocks}: busy {percent(each.busy_s / each.seconds, 0)}." for each in shown)
    description = f"{seconds(found.span_s)} of training blocks in processes of their own, a row for each. {told}"
    unit_s, unit = (60.0, "minutes") if found.span_s >= 300 else (1.0, "seconds")
    with canvas("block-workers", 0.65 + 0.3 * len(shown)) as figure_:
        axes = figure_.subplots()
        _draw(axes, shown, found.span_s, unit_s)
        for at_s in found.plans_s[1:]:
            axes.axvline(at_s / unit_s, color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (1, 2)), zorder=3.5)
        axes.set_xlim(0, found.span_s / unit_s)
        axes.set_xlabel(f"{unit} of training")
        svg = to_svg(figure_, "block-workers", description)
    return Drawing("block-workers", title, description, _note(found, len(shown)), svg)


def workers_table(found: BlockWorkers) -> Table | None:
    """A row for each; None where there is none."""
    if not found.workers:
        return None
    rows = [
        [
            each.blocks,
            each.place,
            str(each.count),
            grouped(each.step),
            percent(each.busy_s / each.seconds, 0) if each.seconds else MISSING,
            each.how,
        ]
        for each in found.workers
    ]
    head = ["Blocks", "Process", "To train", "Steps", "Busy", "End"]
    return Table("Workers that trained blocks", head, rows[: 4 * ROWS_MAX], words=True)


def _draw(axes: Axes, shown: Sequence[BlockWorker], span_s: float, unit_s: float) -> None:
    boxes: dict[float, list[tuple[float, float, float, float]]] = {}
    for row, worker in enumerate(shown):
        for each in merged(worker.stretches, span_s / _BOXES_MAX, _LEVELS):
            shade = 0.2 + 0.8 * round(each.busy_share * _LEVELS) / _LEVELS
            boxes.setdefault(shade, []).append((each.start_s / unit_s, each.end_s / unit_s, row - 0.36, row + 0.36))
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
        axes.text(1.02, row, percent(worker.busy_s / worker.seconds, 0), **place)
    for shade, several in boxes.items():
        fill(axes, several, COLOURS["teacher"], shade)
    names = [each.blocks if len(each.blocks) <= _NAME_MAX else each.blocks[: _NAME_MAX - 1] + "…" for each in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(False)


def _note(found: BlockWorkers, rows: int) -> str:
    handed = "activations were handed on" if found.relayed else "each computed the teacher's blocks itself"
    said = f"On the right the share of time in which each was busy; {handed}."
    for planned_s, measured_s in found.promises[-1:]:
        planned, took = (three_digits(1e3 * each) for each in (planned_s, measured_s))
        said += f" A step was planned to take {planned} ms and took {took} ms."
    if len(found.plans_s) > 1:
        said += " Dotted: planned anew."
    return said + (f" Shown are {rows} of {len(found.workers)}." if len(found.workers) > rows else "")


def _planned(row: Sequence[Any], step: float) -> BlockWorker:
    host, process_id, first, last, replacements = row
    blocks = str(first) if first == last else f"{first} to {last}"
    return BlockWorker(f"{process_id} on {host}", blocks, len(replacements), step)


def _rows(event: Mapping[str, Any], width: int) -> list[Sequence[Any]]:
    return [each for each in listed(event, "workers") if isinstance(each, list) and len(each) == width]


def _end(workers: Sequence[BlockWorker], how: str) -> None:
    for each in workers:
        each.how = how

"""The figures of a run, each with a title that is a sentence, drawn from the events alone where they suffice.

Lines are named at their ends instead of in a legend; the further seeds of a role are thin lines of its colour. A figure
without data is left out, never drawn empty. The cost of a figure does not grow
with the length of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from stillhouse.report.draw import COLOURS, Drawing, canvas, epochs_axis, spread, thin, to_svg
from stillhouse.report.numbers import figure as value_at
from stillhouse.report.numbers import grouped, percent, seconds, three_digits
from stillhouse.report.read import Phase, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROLES = ("teacher", "student", "control")
_LOSSES = {
    "total": "total: the weighted sum",
    "cross_entropy": "on the labels: cross-entropy (nats)",
    "kd": "on the teacher's answers",
}
_SHORT_LOSSES = {"total": "total, weighted", "cross_entropy": "labels (nats)", "kd": "teacher"}


def draw_accuracy(run: Run) -> Drawing | None:
    """Accuracy on the validation samples by epoch, all roles in one frame."""
    curves = {role: [phase.validation() for phase in run.like(role) if phase.evaluations] for role in ROLES}
    curves = {role: several for role, several in curves.items() if several}
    if not curves:
        return None
    ends = {role: mean(curve[-1][1] for curve in several) for role, several in curves.items()}
    teachers = len(curves.get("teacher", ())) > 1
    if teachers and "teacher" in run.phases and run.phases["teacher"].evaluations:
        ends["teacher"] = run.phases["teacher"].validation()[-1][1]  # all of them together
    role = "student" if "student" in ends else next(iter(ends))
    over = f" (mean of {len(curves[role])} seeds)" if len(curves[role]) > 1 and role != "teacher" else ""
    so_far = "" if run.result is not None else ", so far"
    title = f"The {role} got {percent(ends[role])} of the validation samples right{over}{so_far}."
    told = "; ".join(f"{role} {percent(end)}" for role, end in ends.items())
    description = f"Accuracy on the validation samples by epoch. At the end: {told}."
    bottom, top = _accuracy_range(curves, ends)
    with canvas("accuracy", 3.1) as figure:
        axes = figure.subplots()
        for role, several in reversed(curves.items()):
            for rank, curve in enumerate(several):
                epochs, shares = thin(curve)
                width = 1.0 if rank else 2.2
                percents = [100 * share for share in shares]
                axes.plot(epochs, percents, color=COLOURS[role], linewidth=width, zorder=2.5 if rank else 3)
        axes.set_ylim(100 * bottom, 100 * top)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylabel("correct (% of samples)")
        epochs_axis(axes)
        _label_ends(axes, ends, bottom, top)
        svg = to_svg(figure, "accuracy", description)
    several_seeds = any(len(several) > 1 for role, several in curves.items() if role != "teacher")
    each_teacher = "A line for each teacher; the label is what they get right together. " if teachers else ""
    thin_lines = "Thin lines are further seeds; the label is their mean. " if several_seeds else ""
    cut = f"The scale starts at {percent(bottom, 0)}." if bottom > 0.005 else ""
    note = f"Share of held-back samples classified correctly. {each_teacher}{thin_lines}{cut}"
    return Drawing("accuracy", title, description, note.strip(), svg)


def draw_losses(run: Run) -> Drawing | None:
    """The parts of the student's loss, a panel each with a scale of its own."""
    phase = run.phases.get("student")
    curves = {name: curve for name in phase.loss_names if (curve := phase.loss(name))} if phase else {}
    if not curves:
        return None
    columns = 1 if len(curves) <= 4 else 2
    rows = -(-len(curves) // columns)
    first, last = next(iter(curves.values()))[0][1], next(iter(curves.values()))[-1][1]
    title = f"The student's loss went from {three_digits(first)} to {three_digits(last)}."
    told = "; ".join(f"{name} {three_digits(c[0][1])} to {three_digits(c[-1][1])}" for name, c in curves.items())
    description = f"Parts of the student's training loss by epoch, each with its own scale: {told}."
    with canvas("losses", 0.45 + 1.3 * rows) as figure:
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for axes in grid.flat[len(curves) :]:
            axes.set_visible(False)
        for axes, (name, curve) in zip(grid.flat, curves.items(), strict=False):
            axes.plot(*thin(curve), color=COLOURS["student"], linewidth=1.8)
            axes.set_title(_loss_title(name, columns), pad=4)
            lowest, highest = min(y for _, y in curve), max(y for _, y in curve)
            axes.set_ylim(min(0.0, 1.05 * lowest), 1.08 * highest if highest > 0 else 1.0)
            axes.locator_params(axis="y", nbins=3)
            epochs_axis(axes, label=False)
        figure.supxlabel("epoch", fontsize=11, color=COLOURS["muted"])
        figure.supylabel("mean loss", fontsize=11, color=COLOURS["muted"])
        svg = to_svg(figure, "losses", description)
    note = "Parts are shown before weighting, each on its own scale from zero; the total is what training lowers."
    return Drawing("losses", title, description, note, svg)


def draw_learning_rate(run: Run) -> Drawing | None:
    """The student's learning rate by epoch, small."""
    phase = run.phases.get("student")
    curve = phase.learning_rate() if phase else []
    if not curve:
        return None
    epoch, peak = max(curve, key=lambda point: point[1])
    first, last = curve[0][1], curve[-1][1]
    goal = "almost zero" if last < 0.01 * peak else three_digits(last)
    rose = f"rose to {three_digits(peak)}" if peak > first else f"started at {three_digits(peak)}"
    title = f"The learning rate {rose}{f', then fell to {goal}' if last < peak else ''}."
    description = f"The student's learning rate by epoch: highest logged {three_digits(peak)} at epoch {epoch:.1f}."
    with canvas("rate", 1.8) as figure:
        axes = figure.subplots()
        axes.plot(*thin(curve), color=COLOURS["student"], linewidth=1.8)
        axes.set_ylim(0, 1.08 * peak if peak > 0 else 1.0)
        axes.set_ylabel("learning rate")
        axes.locator_params(axis="y", nbins=3)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        epochs_axis(axes)
        svg = to_svg(figure, "rate", description)
    return Drawing(
        "rate",
        title,
        description,
        "How far one step of the student's optimiser goes, as logged; the recipe has the exact schedule.",
        svg,
    )


def draw_throughput(run: Run) -> Drawing | None:
    """Samples a second of the student's training, over its own time."""
    phase = run.phases.get("student")
    stretches = phase.throughput() if phase else []
    if len(stretches) < 2:
        return None
    groups = min(60, len(stretches))
    cuts = [len(stretches) * index // groups for index in range(groups + 1)]
    pieces = [stretches[low:high] for low, high in pairwise(cuts)]
    pace = [(piece[-1][0], sum(p[2] for p in piece) / sum(p[1] for p in piece)) for piece in pieces]
    middle = median(rate for _, rate in pace)
    end = pace[-1][0]
    unit, length = ("hours", 3600.0) if end > 7200 else ("minutes", 60.0) if end > 180 else ("seconds", 1.0)
    title = f"The student's median pace was {grouped(middle)} samples a second."
    description = (
        f"Throughput of the student over {seconds(end)} of training: median {grouped(middle)} samples a second."
    )
    with canvas("pace", 2.4) as figure:
        axes = figure.subplots()
        axes.plot([x / length for x, _ in pace], [y for _, y in pace], color=COLOURS["student"], linewidth=1.8)
        axes.set_ylim(0, 1.12 * max(rate for _, rate in pace))
        axes.set_xlim(left=0)
        axes.set_xlabel(f"training time ({unit})")
        axes.set_ylabel("samples a second")
        axes.locator_params(axis="y", nbins=4)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        svg = to_svg(figure, "pace", description)
    note = "Samples divided by the time for data, answers and steps; evaluation and checkpoints are not counted."
    return Drawing("pace", title, description, note, svg)


def student_throughput(run: Run) -> float | None:
    """Samples a second: the result's figure, or the mean so far for an unfinished run."""
    told = value_at(run.result, "throughput", "samples_per_s")
    phase: Phase | None = run.phases.get("student")
    spent = sum(stretch[1] for stretch in phase.throughput()) if phase else 0.0
    if told is not None or phase is None or not spent:
        return told
    return sum(stretch[2] for stretch in phase.throughput()) / spent


def _accuracy_range(
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]], ends: Mapping[str, float]
) -> tuple[float, float]:
    """Bounds that leave the ends apart; the first epochs may fall below the frame."""
    values = [y for several in curves.values() for curve in several for _, y in curve]
    worst, best = min(ends.values()), max(values)
    room = max(1 - worst, best - worst, 0.02)
    bottom = max(min(values) - 0.01, worst - 6 * room, 0.0)
    bottom = int(bottom * 20) / 20
    return bottom, min(best + 0.06 * (best - bottom) + 1e-3, 1.004)


def _label_ends(axes: Axes, ends: Mapping[str, float], bottom: float, top: float) -> None:
    heights = [(end - bottom) / (top - bottom) for end in ends.values()]
    for (role, end), height in zip(ends.items(), spread(heights, 0.17), strict=True):
        weight = "bold" if role == "student" else "normal"
        place: dict[str, Any] = {"transform": axes.transAxes, "va": "center", "linespacing": 1.05}
        axes.text(1.03, height, f"{role}\n{percent(end)}", color=COLOURS[role], fontweight=weight, **place)


def _loss_title(name: str, columns: int) -> str:
    known = _LOSSES if columns == 1 else _SHORT_LOSSES
    if name in known:
        return known[name]
    teacher, _, student = name.removeprefix("features.").partition("->")
    text = teacher if student in ("", teacher) else f"{teacher} → {student}"
    text += " (squared error)" if columns == 1 and name.startswith("features.") else ""
    most = 42 if columns == 1 else 18
    return text if len(text) <= most else text[: most - 1] + "…"

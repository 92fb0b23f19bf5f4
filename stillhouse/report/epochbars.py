"""Where the time went, epoch by epoch: a figure and a table for each training, and one legend for all.

The colours are those of the bar over the whole training (``timebar``). Each figure has a scale of its own. Further
seeds of a student or a control are told apart from the first, so that they can be folded away.
"""

from __future__ import annotations

from collections.abc import Sequence

from stillhouse.report.draw import Drawing
from stillhouse.report.epochs import Course, Told, course
from stillhouse.report.numbers import MISSING, grouped, percent, seconds
from stillhouse.report.read import Run, parts_in_order, phase_words
from stillhouse.report.stacks import drawn
from stillhouse.report.table import Table
from stillhouse.report.timebar import COLOUR_OF

LEGEND = {
    "data": "reading and augmenting data",
    "teacher": "teacher's answers",
    "store": "label store",
    "step": "training steps",
    "evaluate": "evaluation",
    "checkpoint": "checkpoints",
}
_HEADS = {"step": "Steps", "evaluate": "Evaluation", "checkpoint": "Checkpoints"}
_WHO = {
    "teach": "The teacher, answering ahead,",
    "blocks": "Training the blocks",
    "choose": "Choosing among them",
    "calibrate": "Calibration",
}
_COUNTS = {"hits": "Views read", "misses": "Views asked"}


def courses(run: Run) -> list[Course]:
    """All trainings of which time was told, in the order they ran."""
    return [found for phase in run.phases.values() if (found := course(phase)) is not None]


def is_further_seed(found: Course) -> bool:
    """Whether it is another seed's training, which looks much like the first one's."""
    role, _, number = found.phase.name.partition("-")
    return role in ("student", "control") and number.isdigit() and int(number) > 0


def legend(found: Sequence[Course]) -> list[tuple[str, str]]:
    """(colour, words) of everything that time went to; what nobody knows shares a colour."""
    names = parts_in_order(name for each in found for name in each.parts)
    entries: dict[str, str] = {}
    for name in names:
        colour, words = COLOUR_OF.get(name, "other"), LEGEND.get(name, name)
        entries[colour] = f"{entries[colour]}, {words}" if colour in entries else words
    return list(entries.items())


def draw_course(found: Course, name: str) -> Drawing:
    """A training's time; ``name`` is the figure's own on the page."""
    who = _who(found)
    told = "; ".join(
        f"{LEGEND.get(part, part)} {percent(found.whole.seconds[part] / found.total_s)}" for part in found.parts
    )
    title = f"{who} took {seconds(found.total_s)}{_over(found)}."
    colours = {part: COLOUR_OF.get(part, "other") for part in found.parts}
    heights = [{part: value / bar.epochs for part, value in bar.seconds.items()} for bar in found.bars]
    description = f"Time by epoch, {seconds(found.total_s)} in all: {told}. The numbers are in the table below."
    svg = drawn(name, description, found.bars, heights, colours, seconds, "seconds")
    return Drawing(name, title, description, _note(found), svg)


def numbers(found: Course) -> Table:
    """The figure's numbers: a row a bar, then the sum."""
    places = 3 if found.total_s < 10 else 2 if found.total_s < 1000 else 1
    counts = [name for name in _COUNTS if name in found.whole.counts]

    def row(name: str, told: Told, share: int) -> list[str]:
        parts = [told.seconds.get(part, 0.0) / share for part in found.parts]
        views = [grouped(told.counts.get(each, 0.0) / share) for each in counts]
        return [name, *(f"{value:,.{places}f}" if value else MISSING for value in (*parts, sum(parts))), *views]

    rows = [row(bar.name, bar, bar.epochs) for bar in found.bars]
    if len(found.epochs) > 1:
        rows.append(row("All", found.whole, 1))
    each = "seconds by epoch" if len(found.bars) == len(found.epochs) else "seconds of an epoch, a mean in each row"
    head = ["Epoch", *(_HEADS.get(part, part.capitalize()) for part in found.parts), "In all"]
    caption = f"{phase_words(found.phase.name)}: {each}"
    last = frozenset({len(rows) - 1} if len(found.epochs) > 1 else ())
    return Table(caption, [*head, *(_COUNTS[name] for name in counts)], rows, last)


def _who(found: Course) -> str:
    if found.phase.name in _WHO:
        return _WHO[found.phase.name]
    role, _, number = found.phase.name.partition("-")
    if role in ("student", "control") and number.isdigit():
        return f"The {role} of seed {int(number) + 1}" if int(number) else f"The {role}"
    if role == "blocks" and number.isdigit():
        return f"{_WHO[role]}, sweep {int(number) + 1},"
    return f"Teacher {int(number) + 1}" if role == "teacher" and number.isdigit() else f"The {found.phase.name}"


def _over(found: Course) -> str:
    if found.phase.name == "teach":
        asked = found.whole.counts.get("misses", 0.0)
        return f" for {grouped(asked)} views" if asked else ""
    so_far = ", so far" if not found.phase.finished else ""
    count = len(found.epochs)
    return f" for {count} epochs{so_far}" if count > 1 else f" for one epoch{so_far}"


def _note(found: Course) -> str:
    told = []
    longest = f"epoch {found.longest.name}, {seconds(found.longest.epoch_s)}"
    if len(found.epochs) > 2:
        told.append(f"The median epoch took {seconds(found.typical_s)}, the longest, {longest}.")
    elif len(found.epochs) == 2:
        told.append(f"The longer one was {longest}.")
    if len(found.bars) < len(found.epochs):
        told.append(f"Each bar is the mean of {found.bars[0].last - found.bars[0].first + 1} epochs.")
    if found.unfinished and found.phase.name != "teach":
        told.append(f"Epoch {found.unfinished} is not complete.")
    return " ".join(told)

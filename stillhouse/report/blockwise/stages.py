"""How good the network was at each stage, from the teacher to the fine-tuned student: a row of dots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stillhouse.report.draw import COLOURS, Drawing, canvas, to_svg
from stillhouse.report.numbers import percent

WORDS: Final = {
    "teacher": "teacher",
    "alone_mean": "each choice alone, mean",
    "alone_worst": "each choice alone, worst",
    "assembled": "put together",
    "calibrated": "calibrated",
    "fine_tuned": "fine-tuned",
}
_ALONE = frozenset(["alone_mean", "alone_worst"])


def draw_stages(stages: Mapping[str, float]) -> Drawing | None:
    """The figure; None where no stage but the teacher is known.

    Args:
        stages: accuracies, 0..1.
    """
    known = {name: stages[name] for name in WORDS if name in stages}
    if not known.keys() - {"teacher"}:
        return None
    told = "; ".join(f"{WORDS[name]} {percent(value)}" for name, value in known.items())
    title = _title(known)
    bottom = min(known.values()) - 0.12 * max(max(known.values()) - min(known.values()), 0.02)
    top = max(known.values())
    height = 0.45 + 0.3 * len(known)
    with canvas("stages", height) as figure:
        axes = figure.subplots()
        for row, (name, value) in enumerate(known.items()):
            colour = COLOURS["teacher" if name == "teacher" else "muted" if name in _ALONE else "student"]
            axes.plot([100 * bottom, 100 * value], [row, row], color=COLOURS["line"], linewidth=1.2, zorder=2)
            axes.plot([100 * value], [row], marker="o", markersize=7, color=colour, zorder=3)
            place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "left"}
            axes.text(1.03, row, percent(value), fontweight="bold" if name == "fine_tuned" else "normal", **place)
        axes.set_yticks(range(len(known)), [WORDS[name] for name in known])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(known) - 0.5, -0.5)
        axes.set_xlim(100 * bottom, 100 * (top + 0.04 * (top - bottom)))
        axes.grid(False)
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel("correct (% of validation samples)")
        svg = to_svg(figure, "stages", f"Accuracy on the validation samples by stage: {told}.")
    alone = "Each choice alone: swapped into the teacher, on the samples by which replacements are judged. "
    note = f"{alone if known.keys() & _ALONE else ''}The scale starts at {percent(bottom)}."
    return Drawing("stages", title, f"Accuracy by stage: {told}.", note, svg)


def _title(known: Mapping[str, float]) -> str:
    last = "calibrated" if "calibrated" in known else "assembled"
    if last not in known:
        return "The replacements, each alone in the teacher."
    said = f"The student got {percent(known[last])} right before fine-tuning"
    return f"{said}, {percent(known['fine_tuned'])} after it." if "fine_tuned" in known else f"{said}."

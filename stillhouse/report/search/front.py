"""What accuracy costs among the trials that were trained longest: multiply-adds, latency, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from stillhouse.report.draw import COLOURS, Drawing, canvas, to_svg
from stillhouse.report.numbers import count, dig, figure, listed, milliseconds, percent, size

MEASURES: Final = {
    "params": ("parameters", count),
    "macs": ("multiply-adds", count),
    "bytes": ("bytes of weights", size),
    "peak_bytes": ("peak memory", size),
    "latency_ms": ("latency", milliseconds),
}
LEGEND: Final = [("student", "chosen family"), ("muted", "others"), ("evaluate", "none is better and cheaper")]
_ALIKE = 1.1
_PANELS = ("macs", "peak_bytes", "latency_ms")

Values = Mapping[str, Any]


def finished(told: Values) -> list[Values]:
    """The trials that reached the highest rung, the best first."""
    trials = [each for each in listed(told, "trials") if dig(each, "rungs")]
    top = max((int(epochs) for each in trials for epochs in dig(each, "rungs") or {}), default=0)
    known = [each for each in trials if str(top) in (dig(each, "rungs") or {})]
    return sorted(known, key=lambda each: -value(each))


def value(trial: Values) -> float:
    """At the highest rung that it has reached."""
    rungs = dig(trial, "rungs") or {}
    return float(rungs[max(rungs, key=int)]) if rungs else 0.0


def front(trials: Sequence[Values], measure: str) -> list[Values]:
    """Those of which none is both better and cheaper, the cheapest first."""
    found: list[Values] = []
    for each in sorted(trials, key=lambda trial: (figure(trial, "costs", measure) or 0.0, -value(trial))):
        if not found or value(each) > value(found[-1]):
            found.append(each)
    return found


def fronts(trials: Sequence[Values]) -> dict[str, list[int]]:
    """Numbers of the trials on each measure's front, of those that reached the highest rung; the cheapest first."""
    known = [each for each in finished({"trials": trials}) if dig(each, "costs")]
    measured = [name for name in MEASURES if known and all(figure(each, "costs", name) is not None for each in known)]
    return {name: [int(each["trial"]) for each in front(known, name)] for name in measured}


def draw_front(told: Values) -> Drawing | None:
    """A panel for each measure in which the trials differ; None where fewer than two trials were finished."""
    trials = [each for each in finished(told) if dig(each, "costs")]
    shown = [name for name in _PANELS if _differ(trials, name)]
    if len(trials) < 2 or not shown:
        return None
    chosen = dig(told, "student", "trial")
    best = value(trials[0])
    title = f"{len(trials)} families were trained to the highest rung; the best gets {percent(best)} right."
    told_fronts = []
    with canvas("search-front", 0.3 + 1.45 * len(shown)) as figure_:
        rows = figure_.subplots(len(shown), 1, sharey=True, squeeze=False)[:, 0]
        for axes, name in zip(rows, shown, strict=True):
            noun, words = MEASURES[name]
            own = front(trials, name)
            told_fronts.append(
                f"By {noun}: "
                + ", ".join(f"{words(figure(each, 'costs', name))} for {percent(value(each))}" for each in own)
            )
            scale = _scale(max(figure(each, "costs", name) or 0.0 for each in trials), name)
            for several, colour, line, marker in (
                (trials, "muted", "", 4.0),
                (own, "evaluate", "-", 4.0),
                ([each for each in trials if each.get("trial") == chosen], "student", "", 8.0),
            ):
                xs = [(figure(each, "costs", name) or 0.0) / scale[0] for each in several]
                ys = [100 * value(each) for each in several]
                axes.plot(xs, ys, color=COLOURS[colour], linestyle=line, marker="o", markersize=marker, linewidth=1.4)
            axes.set_xlabel(f"{noun} ({scale[1]})", labelpad=1)
            axes.locator_params(axis="y", nbins=4)
        figure_.supylabel("correct (%)", fontsize=11, color=COLOURS["muted"])
        svg = to_svg(figure_, "search-front", " ".join(told_fronts))
    return Drawing("search-front", title, " ".join(told_fronts), "Mean of a family's members; one sample.", svg)


def _differ(trials: Sequence[Values], measure: str) -> bool:
    found = [each for trial in trials if (each := figure(trial, "costs", measure))]
    return bool(found) and max(found) > _ALIKE * min(found)


def _scale(most: float, name: str) -> tuple[float, str]:
    if name == "latency_ms":
        return 1.0, "ms"
    unit = "B" if name == "peak_bytes" else ""
    for power, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if most >= power:
            return power, f"{prefix}{unit}" if unit else {"G": "billions", "M": "millions", "k": "thousands"}[prefix]
    return 1.0, unit or "number"

"""A plan of a fleet as a table and a page: mixes of teachers, what to expect of each, what the dispatcher made of it.

What is expected is arithmetic, an upper bound; what is simulated says so wherever it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillhouse.report.draw import COLOURS, Drawing, canvas, to_svg
from stillhouse.report.html import fill_in, marked
from stillhouse.report.numbers import MISSING, percent, scaled, seconds, three_digits
from stillhouse.report.table import Table
from stillhouse.runtime.scaling.plan import Row
from stillhouse.runtime.simulated.steady import DELAY_S, JITTER, Steady

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTE = (
    "Samples/s: expected by arithmetic, as if work divided to the last unit and messages took no time. Simulated: by "
    f"the run's own dispatcher with workers on a virtual clock; their times vary by {100 * JITTER:.0f} %, messages "
    f"take {1000 * DELAY_S:.0f} ms, none dies. Starved and idle: shares of the student's and of the workers' time "
    "while answers are asked, expected / simulated. Time, cost, energy: of all epochs, also those read from the store; "
    "starting workers is left out."
)


@dataclass(frozen=True)
class Shown:
    """A mix of the table, and its simulation; None where there is no worker to simulate."""

    row: Row
    simulated: Steady | None


@dataclass(frozen=True)
class FleetPlan:
    """What is wanted of a fleet, and which ones there are.

    Attributes:
        name: of the recipe.
        facts: what the plan was made of: (what, how).
        rate: units/s of the student if it never waits.
        share: of that, which is wanted.
        rows: all mixes that are worth their price, from the slowest to the fastest.
        shown: some of them, simulated.
        chosen: the one to take; None: none is enough.
        verdict: the answer in a sentence.
    """

    name: str
    facts: Sequence[tuple[str, str]]
    rate: float
    share: float
    rows: Sequence[Row]
    shown: Sequence[Shown]
    chosen: Row | None
    verdict: str

    @property
    def priced(self) -> bool:
        """Whether any price was given."""
        return any(row.cost for row in self.rows)


def mix_words(row: Row) -> str:
    """``2 x cpu + 1 x gpu``."""
    return " + ".join(f"{count} x {name}" for name, count in row.workers) or "none (inline)"


def table(plan: FleetPlan) -> Table:
    """The mixes that are shown; columns of prices and watts only where there are any."""
    powered = any(row.energy_wh for row in plan.rows)
    head = ["teachers", "samples/s", "simulated", "starved", "idle", "time"]
    head += [*(["cost"] if plan.priced else []), *(["energy"] if powered else [])]
    rows = []
    for each in plan.shown:
        row, found = each.row, each.simulated
        cells = [mix_words(row), three_digits(row.throughput), three_digits(found.throughput) if found else MISSING]
        cells.append(_both(row.starved_share, found.starved_share if found else None))
        cells.append(_both(row.idle_share, found.idle_share) if found else MISSING)
        cells += [seconds(row.seconds), *([three_digits(row.cost)] if plan.priced else [])]
        cells += [scaled(row.energy_wh, ("Wh", "kWh", "MWh"))] if powered else []
        rows.append(cells)
    chosen = frozenset(place for place, each in enumerate(plan.shown) if each.row == plan.chosen)
    return Table("Teachers, and what to expect of them", head, rows, chosen, note=NOTE)


def _both(expected: float, simulated: float | None) -> str:
    return f"{100 * expected:.1f} / {MISSING if simulated is None else f'{100 * simulated:.1f}'}\N{NO-BREAK SPACE}%"


def draw(plan: FleetPlan) -> Drawing:
    """What each mix costs, or the number of its workers where nothing has a price, against what it gives."""
    unit = "cost of the whole job" if plan.priced else "workers"
    told = "; ".join(
        f"{mix_words(each.row)}: {three_digits(each.row.throughput)} expected"
        + (f", {three_digits(each.simulated.throughput)} simulated" if each.simulated else "")
        for each in plan.shown
    )
    description = f"The {unit} against samples a second: {told}."
    with canvas("fleets", 3.0) as figure:
        axes = figure.subplots()
        _draw_rows(axes, plan)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 1.05 * plan.rate)
        axes.set_xlabel("samples a second")
        axes.set_ylabel(unit)
        axes.locator_params(axis="both", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        svg = to_svg(figure, "fleets", description)
    note = f"Line: expected. Dots: simulated. Dashed: wanted, {percent(plan.share, 0)} of the student's own rate." + (
        " Ring: the mix to take." if plan.chosen else ""
    )
    title = "What each mix costs, and what it gives." if plan.priced else "How many workers, and what they give."
    return Drawing("fleets", title, description, note, svg)


def page(plan: FleetPlan) -> str:
    """The plan as one self-contained page."""
    values: dict[str, Any] = {
        "name": plan.name,
        "verdict": plan.verdict,
        "tone": "good" if plan.chosen else "open",
        "made_of": plan.facts,
        "drawing": marked(draw(plan)),
        "table_of_mixes": table(plan),
    }
    return fill_in("fleets.html.j2", values)


def _draw_rows(axes: Axes, plan: FleetPlan) -> None:
    def at(row: Row) -> float:
        return row.cost if plan.priced else float(row.count)

    line = sorted((row.throughput, at(row)) for row in plan.rows)
    axes.plot(*zip(*line, strict=True), color=COLOURS["teacher"], linewidth=1.8)
    dots = [(each.simulated.throughput, at(each.row)) for each in plan.shown if each.simulated]
    if dots:
        axes.plot(*zip(*dots, strict=True), "o", color=COLOURS["student"], markersize=5)
    axes.axvline(plan.share * plan.rate, color=COLOURS["muted"], linewidth=1.0, linestyle="--")
    if plan.chosen is not None:
        ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": COLOURS["ink"], "markersize": 11}
        axes.plot([plan.chosen.throughput], [at(plan.chosen)], "o", **ring)

"""``stillhouse plan``: how many teachers of which kind a run wants, before any is started."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Shown

    from stillhouse.report.table import Table
    from stillhouse.runner.fleet_plan import Offer

_TEACHER = "NAME:RATE[:PRICE[:WATTS[:COUNT]]]"
_STUDENT = "RATE[:PRICE[:WATTS]]"
_TEACHERS_MIN = 12  # columns, so that a mix is not a word a line


class _Figures(click.ParamType[tuple[Any, ...]]):
    """Parts between colons; an empty one, and those left out, are None."""

    def __init__(self, form: str, named: bool) -> None:
        self.name, self._named = form, named

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        parts = str(value).split(":")
        most = 1 + self.name.count("[") + self._named
        if len(parts) > most or (self._named and not parts[0]):
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        name, figures = (parts[:1], parts[1:]) if self._named else ([], parts)
        return (*name, *(self._figure(each, place, param, ctx) for place, each in enumerate(figures)))

    def _figure(self, text: str, place: int, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if not text:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0 or (place == 0 and number == 0):
            self.fail(f"{text!r} is no {'rate' if place == 0 else 'price, power or count'}: {self.name}", param, ctx)
        if place == 3 and (number < 1 or number != int(number)):
            self.fail(f"{text!r} is no number of workers: {self.name}", param, ctx)
        return number


@click.command(
    epilog="""\b
Examples:
  stillhouse plan my.yaml --from runs/my                 with the speeds that a run measured
  stillhouse plan my.yaml --student 3400 --teacher cpu:400:0.05 --teacher gpu:5000:0.9:300:4
  stillhouse plan my.yaml --from runs/my --teacher cpu/1::0.05   a measured speed with a price
"""
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    type=_Figures(_TEACHER, named=True),
    help="A kind of worker: views/s of one, its price an hour in any currency, its watts, how many can be had (100). "
    "An empty RATE is the measured one of that name.",
)
@click.option(
    "--student",
    type=_Figures(_STUDENT, named=False),
    default="",
    help="Samples/s when it never waits for the teacher, its price an hour, its watts.",
)
@click.option(
    "--share",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=0.95,
    show_default=True,
    help="Wanted share of the student's own rate.",
)
@click.option(
    "--from", "run", type=click.Path(path_type=Path), help="A run of this recipe, for speeds that are not given."
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with a plot, too.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one value of the recipe.")
def plan(
    recipe: Path,
    teachers: tuple[tuple[Any, ...], ...],
    student: tuple[Any, ...],
    share: float,
    run: Path | None,
    html: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Say how many teachers of which kind RECIPE wants, what they would give, and cost.

    The cheapest mix that gives the student --share of its own rate is found by arithmetic, and tried with the run's
    own dispatcher on a simulated clock. Nothing is trained, nobody is started.
    """
    from stillhouse.foundation.files import write_atomic
    from stillhouse.recipe.load import load
    from stillhouse.report.fleets import page, table
    from stillhouse.runner.fleet_plan import fleet_plan, nothing_to_plan
    from stillhouse.runner.rates import Rates, rates_of, same_recipe

    loaded, rates = load(recipe, overrides), Rates()
    if run is not None:
        loaded = same_recipe(loaded, run)
        rates = rates_of(run, loaded)
    if why := nothing_to_plan(loaded):
        click.echo(why)
        return
    offers = [_offer(str(name), figures) for name, *figures in teachers]
    found = fleet_plan(loaded, rates, offers, _offer("student", student), share)
    width = max(len(what) for what, _ in found.facts)
    for what, how in found.facts:
        click.echo(f"{what:<{width}} {how}")
    _print(table(found), found.verdict)
    if html is not None:
        write_atomic(html, page(found))
        click.echo(str(html))
    if found.chosen is not None and len(found.chosen.workers) == 1:
        click.echo(f"so many on this machine: stillhouse run {recipe} --workers {found.chosen.count}")


def _offer(name: str, figures: list[Any] | tuple[Any, ...]) -> Offer:
    from stillhouse.runner.fleet_plan import Offer

    keys = ("rate", "price", "watts", "available")
    told = {key: value for key, value in zip(keys, figures, strict=False) if value is not None}
    if "available" in told:
        told["available"] = int(told["available"])
    return Offer(name, **told)


def _print(table: Table, verdict: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    wide = Console(width=None if console.is_terminal else 120)
    console.print()
    console.print(Text(verdict, style="bold"))
    console.print()
    wide.print(_shown(table, wide))
    console.print()
    console.print(Text(table.note, style="dim"))


def _shown(table: Table, console: Console) -> Shown:
    """The table for the terminal; the chosen row bold, with a star. In a narrow one words and shares wrap."""
    from rich.table import Table as Shown
    from rich.text import Text

    shown = Shown(box=None, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("", no_wrap=True)
    for place, name in enumerate(table.head):
        shown.add_column(name, justify="right" if place else "left", no_wrap=place > 0)
    for place, row in enumerate(table.rows):
        marked = place in table.marked
        shown.add_row("*" if marked else "", *(Text(cell) for cell in row), style="bold" if marked else "")
    if console.measure(shown).minimum > console.width - _TEACHERS_MIN:
        shown.padding = (0, 1, 0, 0)
        for column in shown.columns:
            column.no_wrap = column.header not in ("teachers", "starved", "idle")
    return shown

"""How many teachers of which kind a run wants: rates and prices in, mixes out, the best ones simulated; no torch.

``runtime.scaling.plan`` finds the mixes that are worth their price by arithmetic. The run's own dispatcher, on a
virtual clock, then says what the best of them and their neighbours really give.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stillhouse.data.open import survey
from stillhouse.foundation.errors import DataError, RecipeError, UserError, nearest
from stillhouse.recipe.engines import AUTO
from stillhouse.recipe.recipe import FunctionSource, LiveSource, Recipe
from stillhouse.report.fleets import FleetPlan, Shown, mix_words
from stillhouse.report.numbers import grouped, percent, three_digits
from stillhouse.runner.plan import logits_bytes
from stillhouse.runner.rates import Rates
from stillhouse.runtime.scaling import plan as fleets
from stillhouse.runtime.simulated.steady import Steady, steady

LINE_BATCHES: Final = 64  # that a student has asked about at most; of teachers.fleet, which needs torch
LINE_LEAST: Final = 2  # however large they are
_TRIED = 4
_BESIDE = 2
_CLOSE = 0.995  # of the wanted share: a simulation's last item more or less


@dataclass(frozen=True)
class Offer:
    """Teachers of one kind, or the student, as a person tells them.

    Attributes:
        rate: units/s of one; None: as it was measured.
        price: of one, an hour, in any currency.
        watts: of one at work.
        available: the most that can be had.
    """

    name: str
    rate: float | None = None
    price: float = 0.0
    watts: float = 0.0
    available: int = 100


@dataclass(frozen=True)
class _Work:
    """What is asked. ``item``: views of a question; ``window``: views that may be asked and not taken."""

    samples: int
    epochs: int
    views: float
    item: int
    window: int


def nothing_to_plan(recipe: Recipe) -> str:
    """Why no run of the recipe wants teachers; "" where one does."""
    return "" if recipe.objective.asks else "nothing to plan: the objective asks nothing of a teacher"


def fleet_plan(recipe: Recipe, rates: Rates, offers: Sequence[Offer], student: Offer, share: float) -> FleetPlan:
    """The mixes, some of them simulated, and which one to take; of a run whose answers are all stored, one like it.

    Args:
        rates: measured ones, in place of those that nobody gave.
        offers: teachers to be had; none: those that were measured.
        share: of the student's own rate, that is wanted; above 0, at most 1.

    Raises:
        UserError: a rate that was neither given nor measured; says how to give it.
        DataError: the data can't be read, or are fewer than a batch.
    """
    rate = student.rate or rates.student
    if rate is None:
        raise UserError(
            "nobody knows how fast the student is: give --student RATE, samples a second when it never waits for the "
            "teacher, or --from RUN, a run of this recipe that has trained its student for a while"
        )
    kinds, work = _kinds(offers, rates), _work(recipe, rates)
    job = fleets.Job(work.samples, work.epochs, work.views, rate, rates.inline, student.price, student.watts)
    rows = fleets.plan(kinds, job)
    simulated: dict[fleets.Row, Steady] = {}

    def found(row: fleets.Row) -> Steady:
        if row not in simulated:
            speed = {kind.name: kind.rate for kind in kinds}
            each = [speed[name] for name, count in row.workers for _ in range(count)]
            simulated[row] = steady(each, rate, work.item, work.window, recipe.seed)
        return simulated[row]

    def borne_out(row: fleets.Row) -> bool:
        return not row.workers or found(row).throughput >= _CLOSE * share * rate

    enough = fleets.by_cost(rows, job, share)[:_TRIED]
    chosen = next(filter(borne_out, enough), None)
    if enough and chosen is None:
        more = fleets.by_cost(fleets.beside(enough[0], kinds, job), job, share)
        chosen = next(filter(borne_out, more), None) or max(enough, key=lambda row: found(row).throughput)
    shown = [Shown(row, found(row) if row.workers else None) for row in _around(rows, chosen, simulated)]
    verdict = _verdict(rows, chosen, simulated, rate, share)
    taken = {name for row in rows for name, _ in row.workers}
    facts = _facts(recipe, rates, student, rate, kinds, offers, work, taken)
    return FleetPlan(recipe.name, facts, rate, share, rows, shown, chosen, verdict)


def _kinds(offers: Sequence[Offer], rates: Rates) -> list[fleets.Kind]:
    found: list[fleets.Kind] = []
    measured = rates.teachers or {}
    for offer in offers or [Offer(name) for name in measured]:
        rate = offer.rate or measured.get(offer.name)
        if rate is None:
            hint = nearest(offer.name, measured) if measured else "none was: give --from RUN, a run with --workers"
            raise UserError(
                f"nobody knows how fast a teacher '{offer.name}' is: give --teacher {offer.name}:RATE, views a second "
                f"of one of them, or a name that was measured ({hint})"
            )
        if offer.name in [kind.name for kind in found]:
            raise UserError(f"--teacher {offer.name} is given twice: give each kind a name of its own")
        found.append(fleets.Kind(offer.name, rate, offer.price, offer.watts, offer.available))
    if not found:
        silent = " (that run read all answers from the label store)" if rates.answered >= 1.0 else ""
        raise UserError(
            f"nobody knows which teachers there are{silent}: give --teacher NAME:RATE, views a second of one of them, "
            "or --from RUN, a run of this recipe whose teacher has answered for a while (run --workers 1)"
        )
    return found


def _work(recipe: Recipe, rates: Rates) -> _Work:
    train = recipe.student.train
    samples, view_bytes, row_bytes = rates.samples, rates.view_bytes or 1, rates.row_bytes or 1
    if not isinstance(recipe.data.source, FunctionSource | LiveSource):
        data = survey(recipe.data, recipe.seed)
        samples = len(data.splits.train) // train.batch_size * train.batch_size
        row_bytes = rates.row_bytes or logits_bytes(recipe.knowledge.logits, data.classes)
        view_bytes = rates.view_bytes or data.form.nbytes
    if samples is None:
        raise RecipeError(
            "how many samples there are is known once a run has called your function: give --from RUN, a run of this "
            "recipe that has begun with its student"
        )
    if samples == 0:
        raise DataError(f"student.train.batch_size: a batch of {train.batch_size} is more than the training samples")
    students = max(recipe.control.seeds, 1)
    epochs = train.epochs * students
    unanswered = 1.0 if rates.answered >= 1.0 else 1.0 - rates.answered
    size = recipe.teacher.engine.batch_size
    window_bytes = recipe.fleet.window_mb * 10**6
    line = max(min(LINE_BATCHES, window_bytes // (view_bytes * train.batch_size)), LINE_LEAST)
    item = train.batch_size if size == AUTO else int(size)
    return _Work(
        samples,
        epochs,
        epochs if recipe.knowledge.source == "inline" else recipe.data.views_in(train.epochs) * unanswered,
        item,
        window=max(min(window_bytes // row_bytes, line * train.batch_size), item),
    )


def _around(
    rows: Sequence[fleets.Row], chosen: fleets.Row | None, simulated: Mapping[fleets.Row, Steady]
) -> list[fleets.Row]:
    """The first and the last, the chosen one and those beside it, and what else was simulated; by throughput."""
    middle = rows.index(chosen) if chosen in rows else len(rows) - 1
    beside = rows[max(middle - _BESIDE, 0) : middle + _BESIDE + 1]
    return sorted({rows[0], rows[-1], *beside, *simulated}, key=lambda row: (row.throughput, row.cost))


def _verdict(
    rows: Sequence[fleets.Row],
    chosen: fleets.Row | None,
    simulated: Mapping[fleets.Row, Steady],
    rate: float,
    share: float,
) -> str:
    if chosen is None:
        most = rows[-1]
        return (
            f"No mix reaches {percent(share, 0)} of the student's own rate: the most is {mix_words(most)}, "
            f"{percent(most.throughput / rate, 0)}."
        )
    if not chosen.workers:
        return f"No fleet is needed: the student alone has {percent(chosen.throughput / rate, 0)} of its own rate."
    given = simulated[chosen].throughput / rate
    told = f"{percent(chosen.throughput / rate, 0)} of the student's own rate expected, {percent(given, 0)} simulated"
    if given < _CLOSE * share:
        return f"{mix_words(chosen)} should be enough ({told}), but {percent(share, 0)} was wanted: take more."
    return f"{mix_words(chosen)}: {told}."


def _facts(
    recipe: Recipe,
    rates: Rates,
    student: Offer,
    rate: float,
    kinds: Sequence[fleets.Kind],
    offers: Sequence[Offer],
    work: _Work,
    taken: Collection[str],
) -> list[tuple[str, str]]:
    measured = "measured" + (", on an accelerator: too high if it waited" if rates.accelerator else "")
    own = f"{three_digits(rate)} samples/s when it never waits ({'given' if student.rate else measured})"
    facts = [("Student", own + _costs(student.price, student.watts))]
    if rates.inline:
        facts.append(("Inline", f"{three_digits(rates.inline)} views/s in the student's process (measured)"))
    given = {offer.name for offer in offers if offer.rate}
    for kind in kinds:
        how = "given" if kind.name in given else "measured; on shared cores more of them give less"
        told = f"{three_digits(kind.rate)} views/s each ({how}){_costs(kind.price, kind.watts)}"
        unwanted = "" if kind.name in taken else "; in no mix: others give as much for less"
        facts.append((f"Teacher {kind.name}", f"{told}, at most {kind.available}{unwanted}"))
    asked = f"{work.views:g} of {work.epochs} epochs of {grouped(work.samples)} samples"
    rest = "" if work.views >= work.epochs else "; the others are read from the label store"
    if rates.answered >= 1.0 and recipe.knowledge.source != "inline":
        rest += "; planned as if nothing were stored: all answers are, and this run asks no teacher any more"
    facts.append(("Asked", asked + rest))
    seeds = f"; {recipe.control.seeds} students, one after the other" if recipe.control.seeds > 1 else ""
    guessed = recipe.objective.features and rates.row_bytes is None
    uncounted = " (features not counted: give --from RUN, a run of this recipe)" if guessed else ""
    facts.append(
        ("Questions", f"of {work.item} views, at most {grouped(work.window)} views not taken yet{uncounted}{seeds}")
    )
    return facts


def _costs(price: float, watts: float) -> str:
    return (f", {three_digits(price)} an hour" if price else "") + (f", {three_digits(watts)} W" if watts else "")

"""The section "The search" of a run's page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.report.draw import Drawing
from stillhouse.report.numbers import MISSING, count, dig, figure, grouped, listed, milliseconds, percent, size
from stillhouse.report.read import Run
from stillhouse.report.search.front import LEGEND as FRONT
from stillhouse.report.search.front import draw_front, finished, value
from stillhouse.report.search.members import draw_members
from stillhouse.report.search.read import short, sought
from stillhouse.report.search.trials import LEGEND as TRIALS
from stillhouse.report.search.trials import draw_best, draw_rungs
from stillhouse.report.table import Table

_FEW = 8
_MOST = 200


@dataclass(frozen=True)
class SearchSection:
    """What the page says of a search."""

    sentence: str
    legend: list[tuple[str, str]]
    columns: list[list[Drawing]]
    front_legend: list[tuple[str, str]]
    best: Table | None
    importances: Table | None
    details: list[Table]


def search_section(run: Run) -> SearchSection | None:
    """The section, as far as a run got; None where nothing is searched."""
    told: Mapping[str, Any] | None = dig(run.result, "search") or sought(run.events)
    if not told or not listed(told, "trials"):
        return None
    front = draw_front(told)
    left, right = [draw_best(run.events), draw_members(told)], [draw_rungs(told), front]
    columns = [[each for each in column if each is not None] for column in (left, right)]
    return SearchSection(
        sentence(run, told),
        TRIALS if any(columns) else [],
        columns,
        FRONT if front else [],
        _best(told),
        _importances(told),
        [_trials(told)],
    )


def sentence(run: Run, told: Mapping[str, Any]) -> str:
    """What was tried, and what that cost."""
    trials = listed(told, "trials")
    trained = [each for each in trials if dig(each, "rungs")]
    failed = sum(bool(each.get("failed")) for each in trials)
    over = sum(bool(each.get("ended")) and not dig(each, "rungs") and not each.get("failed") for each in trials)
    said = f"{len(trained)} trials were trained for {grouped(figure(told, 'trained_epochs') or 0)} epochs in all"
    if finals := figure(told, "finalist_epochs"):
        said += f", finalists for {grouped(finals)} more"
    left = [f"{over} did not keep to the budget"] if over > 0 else []
    left += [f"{failed} could not be trained"] if failed else []
    said += f"; {' and '.join(left)}." if left else "."
    hits, misses = figure(run.result, "store", "hits"), figure(run.result, "store", "misses")
    if hits is not None and misses:
        said += f" The teacher was asked {grouped(misses)} times, {grouped(hits)} answers were read from the store:"
        said += f" {hits / misses:.1f} times as many as it gave."
    elif hits:
        said += f" The teacher was not asked once: all {grouped(hits)} answers were read from the store."
    if any(name.startswith("control") for name in run.phases):
        said += (
            " The control has the student's network and, where control.optimizer says no other, its learning rate:"
            " both were chosen for what they do with the teacher."
        )
    return said


def _best(told: Mapping[str, Any]) -> Table | None:
    chosen = dig(told, "student", "trial")
    rows, marked = [], set()
    for number, each in enumerate(finished(told)[:_FEW]):
        members = [float(member) for member in listed(each, "members")]
        spread = f"{100 * min(members):.1f} to {percent(max(members))}" if len(members) > 1 else MISSING
        finals = [float(f["accuracy"]) for f in listed(told, "finalists") if f.get("trial") == each.get("trial")]
        trained = percent(statistics.mean(finals)) if finals else MISSING
        rows.append([f"trial {each.get('trial')}", percent(value(each)), spread, trained, *_costs(each)])
        if each.get("trial") == chosen:
            marked.add(number)
    head = ["Family", "Mean", "Members", "To the end", "Parameters", "Multiply-adds", "Peak memory", "Latency"]
    title = "The best families: correct on the validation split, costs"
    return Table(title, head, rows, frozenset(marked)) if rows else None


def _importances(told: Mapping[str, Any]) -> Table | None:
    found = dig(told, "importances") or {}
    rows = [[str(key), percent(float(share), 0)] for key, share in found.items()]
    tried = sum(bool(dig(each, "rungs")) for each in listed(told, "trials"))
    note = (
        f"How much of the differences between {tried} trials each key explains, by PED-ANOVA; most of them were "
        "trained for a few epochs only, and of fewer than a hundred it is a rough guess."
    )
    return Table("What mattered", ["Key", "Importance"], rows, note=note) if rows else None


def _trials(told: Mapping[str, Any]) -> Table:
    rows = []
    for each in listed(told, "trials")[:_MOST]:
        rungs = dig(each, "rungs") or {}
        reached = f"{(most := max(rungs, key=int))} epoch{'s' * (most != '1')}" if rungs else MISSING
        point = ", ".join(f"{short(key)} {_shown(found)}" for key, found in (dig(each, "point") or {}).items())
        end = str(each.get("ended") or "")
        rows.append([str(each.get("trial")), reached, percent(value(each)) if rungs else MISSING, end, point])
    return Table("All trials", ["Trial", "Trained", "Correct", "End", "What it is"], rows, words=True)


def _costs(each: Mapping[str, Any]) -> list[str]:
    costs = dig(each, "costs") or {}
    shown = [count(figure(costs, "params")), count(figure(costs, "macs")), size(figure(costs, "peak_bytes"))]
    return [*shown, milliseconds(figure(costs, "latency_ms"))]


def _shown(found: object) -> str:
    return f"{found:.3g}" if isinstance(found, float) else str(found)

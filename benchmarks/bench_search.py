"""What a search finds for what it costs, against searches over single networks; its record and its arms are kept.

The record (``search_record``) and the live searches (``search_arms``) are made where they are not in the results yet,
which takes hours; they can be stopped and gone on with. ``--quick`` makes a little of everything and writes nothing.

    python -m benchmarks.bench_search [--quick]
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import search_arms, search_record
from benchmarks.harness import Claim, commit, compare, machine, quick, tell
from benchmarks.search_arms import KINDS
from benchmarks.search_simulated import share_of_ideal
from benchmarks.search_task import FOLDER, GRAPHS, RUNGS, opened, prepared, with_search
from stillhouse.foundation.events import Event
from stillhouse.recipe.load import validate
from stillhouse.recipe.recipe import Recipe, as_dict
from stillhouse.recipe.search import SearchSection
from stillhouse.runner.search.task import Here, Setting, Task

GRAPHS_MADE = 400
REACHED = 100
TABLE = (5, 10, 20, 50, 100)
EFFICIENCY = (
    "networks trained to the end until one is as accurate as the best of {} random single graphs (validation; mean "
    "over orders of the tabular record), against those that {} took (epochs of all its trials, in such networks; {} "
    "live searches, median; one that never came there counts as 0: {} of them)"
)
AGAINST = "the same cost of {} until it was as accurate as ours at its end, against ours; the median search of each"
TRIAL = "a trial up to its first rung that reads the shared label store, against the same by labels alone: samples/s"
WORKERS = (
    "simulated from the recorded times of {} graphs ({} whose process was paused are left out), one of {} goes on; "
    "starting and feeding workers left out: busy share of eight workers' time"
)
_PAUSED = 10
"""Times the median of its rung."""

Curve = Sequence[tuple[float, float]]


def best_of(end: NDArray[np.float64], count: int) -> float:
    """Mean over all orders of the best of the first ``count``."""
    ranked, size = np.sort(end)[::-1], len(end)
    shares = [math.comb(size - place - 1, count - 1) / math.comb(size, count) for place in range(size - count + 1)]
    return float(np.dot(ranked[: len(shares)], shares))


def reached(curve: Curve, target: float) -> float:
    """What a search cost until a network was as accurate; infinite where none was."""
    return next((cost for cost, best in curve if best >= target), math.inf)


def efficiency(claim: str, name: str, end: NDArray[np.float64], curves: Sequence[Curve]) -> Claim:
    """How many fewer networks a way to search needs than random search over single graphs."""
    target = best_of(end, REACHED)
    costs = [reached(each, target) for each in curves]
    ratios = sorted(REACHED / cost for cost in costs)
    told = EFFICIENCY.format(REACHED, name, len(curves), sum(math.isinf(each) for each in costs))
    middle = round(statistics.median(ratios), 2)
    cost = round(REACHED / middle, 2) if middle else -1
    return _claim(claim, middle, cost, REACHED, (round(ratios[0], 2), round(ratios[-1], 2)), len(curves), told)


def against(claim: str, name: str, ours: Sequence[Curve], theirs: Sequence[Curve]) -> Claim:
    """How much more another way to search costs until it is as accurate as the median search of it is at its end."""
    target = statistics.median(each[-1][1] for each in theirs)
    mine, rival = (statistics.median(reached(each, target) for each in curves) for curves in (ours, theirs))
    ends = sorted(each[-1][1] for each in theirs)
    told = AGAINST.format(name) + f"; its searches ended at {100 * ends[0]:.2f} to {100 * ends[-1]:.2f} %"
    return _claim(claim, round(rival / mine, 2), round(mine, 2), round(rival, 2), (0.0, 0.0), len(theirs), told)


def _claim(
    claim: str, ratio: float, ours: float, rival: float, spread: tuple[float, float], rounds: int, definition: str
) -> Claim:
    return Claim(claim, ratio, ours, rival, "networks", spread, rounds, definition, machine(), commit())


def trial_cost(folder: Path, rounds: int, *, short: bool) -> Claim:
    """A trial that reads the store against one that learns from labels only: the same graph, turn by turn."""
    task = prepared(folder, short=short)
    plain = validate({**as_dict(task), "objective": {"cross_entropy": 1.0, "kd": None}})
    turns = [
        _trainings(with_search(each, space=dict(GRAPHS)), folder, name)
        for each, name in ((task, "kd"), (plain, "labels"))
    ]
    with turns[0] as ours, turns[1] as rival:
        ours(), rival()
        return compare("trial_cost", TRIAL, "samples/s", ours, rival, rounds)


@contextlib.contextmanager
def _trainings(recipe: Recipe, folder: Path, name: str) -> Iterator[Callable[[], float]]:
    """What trains a new member of the recipe's own family up to the first rung."""
    sought = with_search(recipe, space=dict(GRAPHS))
    with tempfile.TemporaryDirectory(dir=folder) as out, opened(sought, Path(out) / name) as hunt:
        place = Here(Setting(hunt.folder, hunt.teacher, hunt.teachings, hunt.signals), _unheard, _unheard)
        made = hunt.members.of({}, 0, 0)
        numbers = itertools.count()
        samples = len(made.data.splits.train) // 128 * 128 * RUNGS[1]

        def train() -> float:
            place.give(Task(next(numbers), 0, 0, RUNGS[1], made))
            begun_s = time.perf_counter()
            (found,) = place.ended()
            assert found.accuracy is not None, found.why
            return samples / (time.perf_counter() - begun_s)

        yield train


def _unheard(event: Event) -> None:
    """Nobody listens."""


def eight_workers(table: Sequence[Mapping[str, Any]]) -> Claim:
    """How busy eight workers are in a search over the record's graphs."""
    spent = np.array([each["seconds"] for each in table])
    whole = (spent <= _PAUSED * np.median(spent, axis=0)).all(axis=1)
    accuracy = [each["accuracy"][1:] for each, fine in zip(table, whole, strict=True) if fine]
    seconds = np.column_stack([spent[whole, :2].sum(axis=1), spent[whole, 2:]]).tolist()
    reduction = SearchSection.model_fields["reduction"].default
    share = round(share_of_ideal(accuracy, seconds, 8, reduction), 3)
    told = WORKERS.format(len(seconds), int((~whole).sum()), reduction)
    return Claim("eight_workers", share, share, 1.0, "share", (share, share), 1, told, machine(), commit())


def shown(end: NDArray[np.float64], curves: Mapping[str, Sequence[Curve]]) -> None:
    """The whole curves: the best accuracy for so many networks' cost, of each way to search."""
    print("networks' cost ", *(f"{count:>18}" for count in TABLE))
    print("random graphs  ", *(f"{100 * best_of(end, count):>18.2f}" for count in TABLE if count < len(end)))
    for name, several in curves.items():
        cells = list[str]()
        for count in TABLE:
            known = [[best for cost, best in each if cost <= count] for each in several]
            best = [100 * each[-1] for each in known if each]
            over = any(each[-1][0] < count for each in several) and count > TABLE[0]
            told = f"{statistics.median(best):.2f} ({min(best):.2f} to {max(best):.2f})" if best else ""
            cells.append(f"{told + ('*' if told and over else ''):>18}")
        print(f"{name:<15}", *cells)
    print("* some had ended before")


def main(*, short: bool) -> list[Claim]:
    """Make what is missing, and compare."""
    with tempfile.TemporaryDirectory(prefix="bench_search.") as made:
        folder = Path(made) if short else FOLDER
        if short:
            table = search_record.block(0, folder, short=True)
            rows = [search_arms.searched(name, 0, folder, short=True) for name in KINDS]
        else:
            search_record.main(GRAPHS_MADE)
            search_arms.main(list(KINDS))
            table, rows = pq.read_table(search_record.RECORD).to_pylist(), search_arms.known()
        costs = trial_cost(folder, 3 if short else 9, short=short)
    end = np.array([each["accuracy"][-1] for each in table])
    curves = {name: [each["curve"] for each in rows if each["arm"] == name] for name in KINDS}
    if short:
        return [costs, eight_workers(table)]
    shown(end, curves)
    found = [efficiency("sample_efficiency", "ours", end, curves["ours"])]
    found += [efficiency(f"sample_efficiency_{name}", name, end, curves[name]) for name in KINDS if name != "ours"]
    found += [against(f"vs_{name}", name, curves["ours"], curves[name]) for name in KINDS if name != "ours"]
    return [*found, costs, eight_workers(table)]


if __name__ == "__main__":
    short = quick()
    tell("search", main(short=short), write=not short)

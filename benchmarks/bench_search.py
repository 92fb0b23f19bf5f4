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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import search_arms, search_record
from benchmarks.harness import Claim, commit, compare, machine, quick, tell
from benchmarks.search_arms import KINDS
from benchmarks.search_figures import (
    REACHED,
    TABLE,
    Curve,
    Values,
    again,
    best_of,
    different,
    half,
    interval,
    reached,
    times_fewer,
    times_more,
)
from benchmarks.search_replays import replayed
from benchmarks.search_simulated import share_of_ideal
from benchmarks.search_task import FOLDER, GRAPHS, RUNGS, opened, prepared, with_search
from stillhouse.foundation.events import Event
from stillhouse.knowledge.source import NoKnowledge
from stillhouse.recipe.load import validate
from stillhouse.recipe.recipe import Recipe, as_dict
from stillhouse.recipe.search import SearchSection
from stillhouse.runner.materials import Materials
from stillhouse.runner.networks import objective_of
from stillhouse.runner.phases import Trainer
from stillhouse.runner.search.hunt import Hunt
from stillhouse.runner.search.task import Task, checkpoints_of
from stillhouse.students.fit import fit

GRAPHS_MADE, UNPADDED_MADE, UNPADDED = 300, 200, 100
SHOWN = (20, 50, 100, 200)
EFFICIENCY = (
    "networks trained to the end until one is as accurate as the best of {} random single graphs ({} in the record; "
    "validation; mean over orders), against those that {} took (epochs of all its trials, in such networks; {}, "
    "median; one that never came there counts as 0: {} of them); range: the middle 90 % over halves of the "
    "graphs and resampled searches, which of five are about their range"
)
AGAINST = (
    "networks that the median search of {} cost until it was as accurate as such searches are at their end, against "
    "those that the median search of ours cost until then; range: the middle 90 % over resampled searches"
)
TOLD = {
    "ours": "families of graphs and how they are taught (temperature, weight, rate, loss kind, augmentation) together",
    "drawn": "the same points drawn at random, without the sampler, and halved in the same way",
    "fewer": "graphs, temperature, weight and rate together, without loss kind and augmentation",
    "graphs": "graphs alone, taught as the recipe says",
    "teaching": "one graph, and how it is taught (temperature, weight, rate, loss kind, augmentation)",
    "unpadded": "families of graphs and how they are taught (temperature, weight, rate, loss kind), nobody pads",
    "no_kd": "graphs and rate without a teacher, our own search (TPE and halving as BOHB has them, but asynchronous, "
    "and the sampler learns from all rungs)",
    "evolution": "regularised evolution over single graphs, each trained to the end",
}
NAMED = {
    "evolution": "vs_evolution",
    "no_kd": "vs_bohb_no_kd",
    "graphs": "joint_vs_graphs_alone",
    "teaching": "joint_vs_teaching_alone",
    "drawn": "sampler_vs_random",
}
TRIAL = (
    "building and training of a trial up to its first rung, by the shared label store, averaged and saved as trials "
    "are, against those of the same student alone: labels only, no averages, no checkpoint each epoch; samples/s"
)
WORKERS = (
    "simulated from the recorded times of {} graphs ({} whose process was paused are left out), searches of {} of them "
    "in random order, one of {} goes on; starting and feeding workers left out: busy share of eight workers' time"
)
_APART = ("ours", "unpadded")
_PAUSED = 10
"""Times the median of its rung."""
_ORDERS = 61


def efficiency(claim: str, told: str, end: Values, curves: Sequence[Curve], count: int = REACHED) -> Claim:
    """How many fewer networks a way to search needs than random search over single graphs."""
    never = sum(math.isinf(reached(each, best_of(end, count))) for each in curves)
    ratio = times_fewer(end, curves, count)
    spread = interval(lambda some, several: times_fewer(some, several, count), half(end, count), again(curves))
    told = EFFICIENCY.format(count, len(end), told, f"{len(curves)} searches", never)
    cost = round(count / ratio, 2) if ratio else -1
    return _claim(claim, round(ratio, 2), cost, count, spread, len(curves), told)


def against(name: str, ours: Sequence[Curve], theirs: Sequence[Curve]) -> Claim:
    """How much more another way to search costs until it is as accurate as the median search of it is at its end."""
    ratio, mine, rival = times_more(ours, theirs)
    spread = interval(lambda some, others: times_more(some, others)[0], again(ours), again(theirs))
    ends = sorted(each[-1][1] for each in theirs)
    told = AGAINST.format(TOLD[name]) + f"; its searches ended at {100 * ends[0]:.2f} to {100 * ends[-1]:.2f} %"
    mine = round(mine, 2) if math.isfinite(mine) else -1
    return _claim(NAMED[name], round(ratio, 2), mine, round(rival, 2), spread, len(theirs), told)


def _claim(
    claim: str, ratio: float, ours: float, rival: float, spread: tuple[float, float], rounds: int, definition: str
) -> Claim:
    return Claim(claim, ratio, ours, rival, "networks", spread, rounds, definition, machine(), commit())


def trial_cost(folder: Path, rounds: int, *, short: bool) -> Claim:
    """A trial that reads the store against the same student that learns from labels, as by itself, turn by turn."""
    task = prepared(folder, short=short)
    alone = validate({**as_dict(task), "objective": {"cross_entropy": 1.0, "kd": None}})
    with _trials(task, folder) as ours, _trainings(alone, folder) as rival:
        ours(), rival()
        return compare("trial_cost", TRIAL, "samples/s", ours, rival, rounds)


@contextlib.contextmanager
def _trials(recipe: Recipe, folder: Path) -> Iterator[Callable[[], float]]:
    """What trains a new trial of the recipe's own family up to the first rung."""
    with _hunt(recipe, folder, "trials") as hunt, hunt.place(_unheard) as place:
        made = hunt.members.of({}, 0, 0)
        numbers = itertools.count()

        def train() -> float:
            place.give(Task(next(numbers), 0, 0, RUNGS[1], made))
            begun_s = time.perf_counter()
            (found,) = place.ended()
            assert found.accuracy is not None, found.why
            return _samples(made) / (time.perf_counter() - begun_s)

        yield train


@contextlib.contextmanager
def _trainings(recipe: Recipe, folder: Path) -> Iterator[Callable[[], float]]:
    """What trains the same student as long, as a run without a search does, and looks how good it is."""
    with _hunt(recipe, folder, "alone") as hunt:
        made = hunt.members.of({}, 0, 0)
        numbers = itertools.count()
        trainer = Trainer(made, hunt.folder, _unheard, hunt.signals)
        settings = made.recipe.student.train

        def train() -> float:
            begun_s = time.perf_counter()
            network, phase = made.networks.student(0), f"alone-{next(numbers)}"
            checkpoints = checkpoints_of(made, hunt.folder, phase)
            stream = made.stream(settings, 0)
            context = trainer.context(phase, checkpoints, _unheard)
            context = replace(context, until_step=RUNGS[1] * stream.steps_per_epoch, evaluate=None)
            objective = objective_of(made.networks, network, hunt.teacher, 0)
            fit(network, NoKnowledge(), stream, objective, settings, context)
            trainer.validate(network)
            return _samples(made) / (time.perf_counter() - begun_s)

        yield train


@contextlib.contextmanager
def _hunt(recipe: Recipe, folder: Path, name: str) -> Iterator[Hunt]:
    """A search of which nothing is searched."""
    sought = with_search(recipe, space=dict(GRAPHS))
    with tempfile.TemporaryDirectory(dir=folder) as out, opened(sought, Path(out) / name) as hunt:
        hunt.record.begin({})
        yield hunt


def _samples(made: Materials) -> int:
    return len(made.data.splits.train) // 128 * 128 * RUNGS[1]


def _unheard(event: Event) -> None:
    """Nobody listens."""


def eight_workers(claim: str, table: Sequence[Mapping[str, Any]], trials: int | None = None) -> Claim:
    """How busy eight workers are in searches over the record's graphs.

    Args:
        trials: of each search; all graphs, where it is None.
    """
    spent = np.array([each["seconds"] for each in table])
    whole = np.flatnonzero((spent <= _PAUSED * np.median(spent, axis=0)).all(axis=1))
    reduction = SearchSection.model_fields["reduction"].default
    count = min(trials or len(whole), len(whole))
    chance = np.random.default_rng(0)
    shares = list[float]()
    for _ in range(_ORDERS):
        order = chance.permutation(whole)[:count]
        accuracy = [table[each]["accuracy"][1:] for each in order]
        seconds = np.column_stack([spent[order, :2].sum(axis=1), spent[order, 2:]]).tolist()
        shares.append(share_of_ideal(accuracy, seconds, 8, reduction))
    share, spread = round(statistics.median(shares), 3), (round(min(shares), 3), round(max(shares), 3))
    told = WORKERS.format(len(whole), len(table) - len(whole), count, reduction)
    return Claim(claim, share, share, 1.0, "share", spread, _ORDERS, told, machine(), commit())


def shown(end: Values, knowing: Values, curves: Mapping[str, Sequence[Curve]]) -> None:
    """The whole curves: the best accuracy for so many networks' cost, and how many fewer that is, by way to search."""
    counts = [each for each in TABLE if each < len(end)]
    print("networks' cost ", *(f"{count:>24}" for count in counts))
    for name, each in (("random graphs", end), ("without padding", knowing)):
        print(f"{name:<15}", *(f"{100 * best_of(each, count):>24.2f}" for count in counts if count < len(each)))
    for name, several in curves.items():
        cells = list[str]()
        for count in counts:
            known = [[best for cost, best in each if cost <= count] for each in several]
            best = [100 * each[-1] for each in known if each]
            over = any(each[-1][0] < count for each in several) and count > counts[0]
            told = f"{statistics.median(best):.2f} ({min(best):.2f} to {max(best):.2f})" if best else ""
            cells.append(f"{told + ('*' if told and over else ''):>24}")
        print(f"{name:<15}", *cells)
    for name, several in curves.items():
        print(f"{name + ', x':<15}", *(f"{times_fewer(end, several, count):>24.1f}" for count in counts))
    print("* some had ended before; x: times fewer networks than random graphs, 0 where half of them never came there")


def main(*, short: bool) -> list[Claim]:
    """Make what is missing, and compare."""
    with tempfile.TemporaryDirectory(prefix="bench_search.") as made:
        folder = Path(made) if short else FOLDER
        if short:
            table = search_record.block(0, folder, short=True)
            rows = [search_arms.searched(name, 0, folder, short=True) for name in KINDS]
        else:
            search_record.main(GRAPHS_MADE)
            search_record.main(UNPADDED_MADE, search_record.KINDS["unpadded"])
            search_arms.main(list(KINDS))
            table, rows = pq.read_table(search_record.RECORD).to_pylist(), search_arms.known()
        costs = trial_cost(folder, 3 if short else 9, short=short)
    trials = KINDS["ours"].search["trials"]
    measured = [costs, eight_workers("eight_workers", table), eight_workers("eight_workers_48", table, trials)]
    if short:
        return measured
    record = different(table)
    end = np.array([each["accuracy"][-1] for each in record])
    curves = {name: [each["curve"] for each in rows if each["arm"] == name] for name in KINDS}
    unpadded = different(pq.read_table(search_record.UNPADDED_RECORD).to_pylist())
    knowing = np.array([each["accuracy"][-1] for each in unpadded])
    shown(end, knowing, curves)
    live = {name: f"{TOLD[name]}; live" for name in KINDS}
    found = [efficiency("sample_efficiency", live["ours"], end, curves["ours"])]
    others = [*(n for n in SHOWN if n != REACHED and n < len(end)), len(end)]
    found += [efficiency(f"sample_efficiency_{n}", live["ours"], end, curves["ours"], n) for n in others]
    found += [efficiency(f"sample_efficiency_of_{n}", live[n], end, curves[n]) for n in KINDS if n not in _APART]
    told = f"{live['unpadded']}, against random graphs of which none pads either"
    found.append(efficiency("sample_efficiency_unpadded", told, knowing, curves["unpadded"], UNPADDED))
    told = f"{live['ours']}, against random graphs of which none pads, which ours has to find out"
    found.append(efficiency("sample_efficiency_against_unpadded", told, knowing, curves["ours"], UNPADDED))
    told = f"{TOLD['graphs']}; replayed on the record"
    found.append(efficiency("sample_efficiency_replayed", told, end, replayed(record)))
    found += [against(name, curves["ours"], curves[name]) for name in NAMED]
    return [*found, *measured]


if __name__ == "__main__":
    short = quick()
    tell("search", main(short=short), write=not short)

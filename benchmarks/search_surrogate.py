"""Ways to search, compared on what the records say of accuracy: samplers, rungs, what the sampler learns from.

Nothing is trained. A forest of trees (scikit-learn), grown on both records, says what a point's networks get at each
rung; a network's own luck is drawn from what the forest left unexplained of the record's graphs, all rungs together. It
ranks ways to search within the records' space; what one finds really, ``search_arms`` says.

    python -m benchmarks.search_surrogate [SEARCHES]
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

from benchmarks.search_figures import REACHED, Curve, best_of, reached
from benchmarks.search_record import BOTH_RECORD, RECORD
from benchmarks.search_task import BOTH, GRAPHS, RECIPE, RUNGS, with_search
from stillhouse.foundation.seeding import subseed
from stillhouse.recipe.load import load
from stillhouse.recipe.recipe import Recipe
from stillhouse.recipe.search import SamplerSection
from stillhouse.study.rungs import Standing, next_job
from stillhouse.study.sampling import Seen, proposed, subseed_of
from stillhouse.study.space import space_of

SEARCHES = 32
TRIALS = 60
_FIXED = {"objective.kd.temperature": 4.0, "objective.kd.weight": 0.9, "student.train.optimizer.learning_rate": 0.2}
_REST = "objective.cross_entropy"
_KEYS = tuple(key for key in BOTH if key != _REST)
_LOGARITHMIC = ("objective.kd.temperature", "student.train.optimizer.learning_rate")
_TREES = 80

_SAMPLERS = (("RandomSampler", False), ("TPESampler", True), ("TPESampler", False), ("GPSampler", False))

Values = NDArray[np.float64]


class Known(Protocol):
    """What is searched in place of networks."""

    def network(self, point: Mapping[str, Any], seed: int) -> tuple[Mapping[str, Any], Values]:
        """The point that is tried, if another one is asked for, and the [rungs] values of one of its networks."""


class Surrogate:
    """What networks of a point would get."""

    def __init__(self) -> None:
        graphs, both = (pq.read_table(each).to_pylist() for each in (RECORD, BOTH_RECORD))
        points = np.array([self._place(json.loads(each["point"])) for each in (*graphs, *both)])
        accuracy = np.array([each["accuracy"] for each in (*graphs, *both)])
        forest = ExtraTreesRegressor(_TREES, min_samples_leaf=2, random_state=0, bootstrap=True, oob_score=True)
        forest.fit(points, accuracy)
        self._forest = forest
        self._luck: Values = (accuracy - forest.oob_prediction_)[: len(graphs)]
        self.end: Values = accuracy[: len(graphs), -1]

    def network(self, point: Mapping[str, Any], seed: int) -> tuple[Mapping[str, Any], Values]:
        """The point, and the [rungs] values of one of its networks."""
        place = np.array([self._place(point)], np.float32)
        expected = np.mean([each.tree_.predict(place)[0].ravel() for each in self._forest.estimators_], axis=0)
        found: Values = expected + self._luck[np.random.default_rng(seed).integers(len(self._luck))]
        return point, found

    def _place(self, point: Mapping[str, Any]) -> list[float]:
        given = {**_FIXED, **point, "student.model.options.operation": 0.0}
        given["student.model.options.operation"] = float(point["student.model.options.operation"] == "separable")
        return [math.log(given[key]) if key in _LOGARITHMIC else float(given[key]) for key in _KEYS]


def highest_rung(seen: Sequence[Seen], keys: int) -> list[Seen]:
    """As BOHB: only what the highest rung says at which there were more trials than keys that vary."""
    most = max((len(each.values) for each in seen), default=0)
    rung = next((r for r in reversed(range(most)) if sum(len(e.values) > r for e in seen) > keys), 0)
    return [Seen(each.point, (each.values[rung],) if len(each.values) > rung else ()) for each in seen]


def search(known: Known, recipe: Recipe, *, highest: bool = False) -> Curve:
    """One search: what all trainings cost, in networks trained to the end, and the best accuracy until then."""
    section = recipe.search
    assert section is not None and section.rungs is not None
    space, sampler, rungs = space_of(recipe), section.sampler, section.rungs
    places = [RUNGS.index(each) for each in rungs]
    points, true, values = list[Mapping[str, Any]](), list[Values](), list[list[float]]()
    found, cost, best = list[tuple[float, float]](), 0.0, 0.0
    while True:
        standings = [Standing(number, tuple(each)) for number, each in enumerate(values)]
        job = next_job(standings, (), section.trials, len(rungs), section.reduction)
        if job is None:
            return found
        number = len(points) if job.trial is None else job.trial
        if job.trial is None:
            seed = subseed_of(recipe, number)
            seen = [Seen(point, tuple(each)) for point, each in zip(points, values, strict=True)]
            seen = highest_rung(seen, len(space) - (_REST in space)) if highest else seen
            name = SamplerSection(name="RandomSampler") if subseed(seed, "random") % 10 == 0 else sampler
            point, reached_there = known.network(proposed(space, recipe, seen, name, seed).point, seed)
            points.append(point)
            true.append(reached_there[places])
            values.append([])
        before = rungs[job.rung - 1] if job.rung else 0
        values[number].append(float(true[number][job.rung]))
        cost += (rungs[job.rung] - before) / rungs[-1]
        if job.rung == len(rungs) - 1:
            best = max(best, values[number][-1])
            found.append((cost, best))


def main(count: int) -> None:
    """Print a line for each way."""
    known = Surrogate()
    targets = [best_of(known.end, each) for each in (20, 50, REACHED)]
    told = ", ".join(f"{100 * each:.2f}" for each in targets)
    print(f"networks' cost until as accurate as the best of 20, 50, {REACHED} random graphs ({told} %): medians")
    task = load(RECIPE, ["data.source={kind: digits}"])  # whatever the data: nothing is trained
    for name, space in (("graphs", GRAPHS), ("both", BOTH)):
        for sampler, highest in _SAMPLERS:
            for rungs, reduction in ((RUNGS[1:], 2), (RUNGS[1:], 3), (RUNGS[1:], 4), (RUNGS, 2)):
                given = {"space": dict(space), "rungs": list(rungs), "reduction": reduction, "trials": TRIALS}
                given["sampler"] = {"name": sampler}
                curves = [
                    search(known, with_search(task, seed=seed, **given), highest=highest) for seed in range(count)
                ]
                costs = [statistics.median(reached(each, target) for each in curves) for target in targets]
                ends = statistics.fmean(100 * each[-1][1] for each in curves)
                learns = "" if sampler == "RandomSampler" else "highest rung" if highest else "all rungs"
                shown = " ".join(f"{each:6.1f}" for each in costs)
                how = f"{name:<7}{sampler:<14}{learns:<13}{rungs!s:<13} 1 of {reduction}"
                print(f"{how} {shown}   end {ends:.2f} %", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEARCHES)

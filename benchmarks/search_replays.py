"""What the tabular record says: how well each rung foretells the end, the best of so many random graphs, and what our
search finds in it: a graph that it proposes is the nearest one of the record that it has not tried yet.

    python -m benchmarks.search_replays [FILE]
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.search_arms import KINDS
from benchmarks.search_figures import TABLE, Curve, best_of, different, reached
from benchmarks.search_record import RECORD
from benchmarks.search_surrogate import search
from benchmarks.search_task import GRAPHS, RECIPE, RUNGS, with_search
from stillhouse.recipe.load import load

SEARCHES = 60
_OPERATION = "student.model.options.operation"


class Tabular:
    """A record whose graphs are taken one by one.

    Args:
        rows: of the record; each network once.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._points = [json.loads(each["point"]) for each in rows]
        self._values = np.array([each["accuracy"] for each in rows])
        self._places = np.array([_place(each) for each in self._points])
        self._free = np.ones(len(rows), bool)

    def network(self, point: Mapping[str, Any], seed: int) -> tuple[Mapping[str, Any], NDArray[np.float64]]:
        """The nearest graph that was not taken."""
        apart = np.abs(self._places - _place(point)).sum(axis=1)
        nearest = int(np.where(self._free, apart, np.inf).argmin())
        self._free[nearest] = False
        return self._points[nearest], self._values[nearest]


def _place(point: Mapping[str, Any]) -> NDArray[np.float64]:
    """Each key from 0 to 1."""
    found = [float(point[_OPERATION] == "separable")]
    for key, each in GRAPHS.items():
        if key != _OPERATION:
            found.append((point[key] - each["low"]) / (each["high"] - each["low"]))
    return np.array(found)


def replayed(rows: Sequence[Mapping[str, Any]], searches: int = SEARCHES) -> list[Curve]:
    """Searches of ours over the record's graphs."""
    task = load(RECIPE, ["data.source={kind: digits}"])  # whatever the data: nothing is trained
    wanted = KINDS["graphs"].search
    return [search(Tabular(rows), with_search(task, seed=seed, **wanted)) for seed in range(searches)]


def main(path: Path) -> None:
    """Print it."""
    rows = different(pq.read_table(path).to_pylist())
    accuracy = np.array([each["accuracy"] for each in rows])
    end = accuracy[:, -1]
    print(f"{len(end)} graphs, {100 * end.min():.1f} to {100 * end.max():.1f} %, mean {100 * end.mean():.2f} %")
    for place, rung in enumerate(RUNGS[:-1]):
        print(f"rank correlation of rung {rung} with the end: {spearmanr(accuracy[:, place], end).statistic:.2f}")
    curves = replayed(rows)
    for count in TABLE:
        if count < len(end):
            target = best_of(end, count)
            cost = statistics.median(reached(each, target) for each in curves)
            print(
                f"best of {count}: {100 * target:.2f} %; our search reaches it after {cost:.1f} (median of {SEARCHES})"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORD)

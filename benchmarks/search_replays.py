"""What the tabular record says by itself: how well each rung foretells the end, and the best of so many random graphs.

python -m benchmarks.search_replays [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.bench_search import TABLE, best_of
from benchmarks.search_record import RECORD
from benchmarks.search_task import RUNGS


def rank_correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(each)) for each in (left, right)]
    return float(np.corrcoef(ranks)[0, 1])


def main(path: Path) -> None:
    """Print it."""
    accuracy = np.array(pq.read_table(path)["accuracy"].to_pylist())
    end = accuracy[:, -1]
    print(f"{len(end)} graphs, {100 * end.min():.1f} to {100 * end.max():.1f} %, mean {100 * end.mean():.2f} %")
    for place, rung in enumerate(RUNGS[:-1]):
        print(f"rank correlation of rung {rung} with the end: {rank_correlation(accuracy[:, place], end):.2f}")
    for count in TABLE:
        if count < len(end):
            print(f"best of {count}: {100 * best_of(end, count):.2f} %")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORD)

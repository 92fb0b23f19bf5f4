"""What the tabular record says: how well early rungs and resemblance foretell the end, and what screening is worth.

Replayed, not trained: random search over the record's graphs, drawn with replacement, until a network is as good as a
share of them; against the same where of so many drawn the one is trained that resembles the teacher most, untrained.

    python -m benchmarks.search_replays [FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.search_record import RECORD
from benchmarks.search_task import RUNGS

ROUNDS = 4000
QUANTILES = (0.5, 0.9, 0.97)
OF = (2, 4, 8)

Array = NDArray[np.float64]


def rank_correlation(left: Array, right: Array) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(each)) for each in (left, right)]
    return float(np.corrcoef(ranks)[0, 1])


def until(target: float, drawn: Callable[[], float]) -> float:
    """Networks trained until one is as good, on average over the rounds."""
    needed = list[int]()
    for _ in range(ROUNDS):
        count = 1
        while drawn() < target:
            count += 1
        needed.append(count)
    return float(np.mean(needed))


def main(path: Path) -> None:
    """Print it."""
    table = pq.read_table(path)
    accuracy = np.array(table["accuracy"].to_pylist())
    end, alike = accuracy[:, -1], np.array(table["resemblance"].to_pylist())
    print(f"{len(end)} graphs, {100 * end.min():.1f} to {100 * end.max():.1f} %, mean {100 * end.mean():.2f} %")
    for place, rung in enumerate(RUNGS[:-1]):
        print(f"rank correlation of rung {rung} with the end: {rank_correlation(accuracy[:, place], end):.2f}")
    print(f"rank correlation of resemblance with the end: {rank_correlation(alike, end):.2f}")
    draw = np.random.default_rng(0)

    def screened(several: int) -> float:
        chosen = draw.integers(len(end), size=several)
        return float(end[chosen[np.argmax(alike[chosen])]])

    for quantile in QUANTILES:
        target = float(np.quantile(end, quantile))
        plain = until(target, lambda: screened(1))
        shares = [f"one of {count}: {plain / until(target, lambda count=count: screened(count)):.2f}" for count in OF]  # type: ignore[misc]
        told = (
            f"as good as {100 * quantile:.0f} % of them: after {plain:.1f} networks; so many times fewer by screening"
        )
        print(f"{told}, {', '.join(shares)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORD)

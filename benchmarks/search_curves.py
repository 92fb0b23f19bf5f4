"""The searches of the search benchmark as a picture: the best network so far, for what finding it cost.

Drawn from the results alone: the tabular record's random graphs (median and middle 90 % over orders, which comes out
too narrow where nearly all of them are drawn) and the live searches of each arm (median and range, as long as any of
them goes on; one that has ended stays as good as it was).

    python -m benchmarks.search_curves [FILE.png]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.search_arms import KINDS, known
from benchmarks.search_figures import Curve, different
from benchmarks.search_record import RECORD, UNPADDED_RECORD
from stillhouse.foundation.seeding import subseed

PICTURE = Path("docs/search-curves.png")
NAMES = {
    "ours": "family and teaching together",
    "drawn": "the same, drawn at random and halved",
    "fewer": "without loss kind and augmentation",
    "graphs": "family alone",
    "teaching": "teaching alone",
    "unpadded": "family and teaching together, nobody pads",
    "no_kd": "family, no teacher",
    "evolution": "regularised evolution",
}
MOST = 100
"""Networks on the horizontal axis."""


def random_graphs(end: NDArray[np.float64], count: int = MOST, orders: int = 4000) -> NDArray[np.float64]:
    """Best of the first 1, 2, ... graphs in drawn orders, (orders, count)."""
    chance = np.random.default_rng(subseed(0, "orders"))
    drawn = np.stack([chance.permutation(end)[:count] for _ in range(orders)])
    return np.maximum.accumulate(drawn, axis=1)


def stretched(curves: Sequence[Curve], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best of each search at each cost, (searches, costs); NaN before its first whole network."""
    table = np.full((len(curves), len(at)), np.nan)
    for row, curve in zip(table, curves, strict=True):
        for cost, best in curve:
            row[at >= cost] = best
    return table


def drawn() -> Figure:
    """The picture."""
    with matplotlib.style.context(["default", {"axes.spines.top": False, "axes.spines.right": False}]):
        figure = Figure(figsize=(8.0, 5.4), layout="constrained", dpi=110)
        axes = figure.subplots()
        for path, style, told in (
            (RECORD, "--", "random single graphs (record)"),
            (UNPADDED_RECORD, ":", "the same, nobody pads (record)"),
        ):
            end = np.array([each["accuracy"][-1] for each in different(pq.read_table(path).to_pylist())])
            best = 100 * random_graphs(end, min(MOST, len(end)))
            counts = np.arange(1, best.shape[1] + 1)
            axes.plot(counts, np.median(best, axis=0), color="0.35", linestyle=style, label=told)
            axes.fill_between(counts, *np.quantile(best, (0.05, 0.95), axis=0), color="0.5", alpha=0.15, linewidth=0)
        at, rows = np.geomspace(1, MOST, 600), known()
        for place, (name, told) in enumerate(NAMES.items()):
            curves = [each["curve"] for each in rows if each["arm"] == name]
            if not curves:
                continue
            table = 100 * stretched(curves, at)
            all_there = ~np.isnan(table).any(axis=0) & (at <= max(each[-1][0] for each in curves))
            axes.plot(at[all_there], np.median(table[:, all_there], axis=0), color=f"C{place}", label=told, zorder=3)
            low, high = table[:, all_there].min(axis=0), table[:, all_there].max(axis=0)
            axes.fill_between(at[all_there], low, high, color=f"C{place}", alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        axes.set_xlim(1, MOST)
        axes.set_ylim(bottom=46)
        axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
        axes.set_xlabel("trained until then, in networks trained to the end")
        axes.set_ylabel("best so far, % of validation samples")
        figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    return figure


if __name__ == "__main__":
    assert set(NAMES) == set(KINDS)
    drawn().savefig(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)

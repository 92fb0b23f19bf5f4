"""The tabular record of the search benchmark: some hundreds of single graphs, each trained once, looked at after every
rung's epochs. Searches are replayed on it, and random search is it, in any order.

Resumable: blocks of graphs that are in it are not made again, and a block that was stopped goes on.

    python -m benchmarks.search_record [NUMBER]

Two more: ``both``, by which the search itself was settled (sampler, rungs), has points of the whole space, graphs and
how they are taught. ``unpadded`` has graphs that see the images without padding: what random search could do if it knew
the one setting that most of what is found together shares.

    python -m benchmarks.search_record [NUMBER] both | unpadded
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import RESULTS, commit, machine
from benchmarks.search_task import BOTH, FOLDER, GRAPHS, NO_PADDING, RUNGS, opened, prepared, with_search
from stillhouse.foundation.history import read_events
from stillhouse.runner.search.hunt import Hunt
from stillhouse.study.record import Trial
from stillhouse.study.rungs import Job

RECORD = RESULTS / "search_record.parquet"
BOTH_RECORD = RESULTS / "search_record_both.parquet"
UNPADDED_RECORD = RESULTS / "search_record_unpadded.parquet"
BLOCK = 25


@dataclass(frozen=True)
class Kind:
    """What a record is of.

    Attributes:
        first: seed of its first block.
        changed: what is otherwise than in the task's recipe.
    """

    path: Path
    space: Mapping[str, Any]
    first: int
    changed: Sequence[str] = ()


GRAPHS_ALONE = Kind(RECORD, GRAPHS, 100)
KINDS = {
    "both": Kind(BOTH_RECORD, BOTH, 300),
    "unpadded": Kind(UNPADDED_RECORD, GRAPHS, 500, NO_PADDING),
}


class Everything(Hunt):
    """Trains every trial to the highest rung, whatever it is worth."""

    def following(self, trials: list[Trial]) -> Job | None:
        """The one that is under way, else a new one."""
        for each in trials:
            if each.open and len(each.values) < len(self.rungs):
                return Job(each.number, len(each.values))
        wanted = self.materials.recipe.search
        assert wanted is not None
        return Job(None, 0) if sum(bool(each.values) for each in trials) < wanted.trials else None


def block(seed: int, folder: Path, kind: Kind = GRAPHS_ALONE, *, short: bool = False) -> list[dict[str, Any]]:
    """Some graphs, drawn at random from the family parameters' ranges, taught by the task's fixed settings where the
    space has none.

    Columns: ``seed`` and ``graph`` say which; ``point`` (JSON), ``params``; at each rung ``accuracy``, and ``seconds``
    of training and looking. (``resemblance``, of the older rows, is of an idea that was left out: ``docs/lab-log.md``.)
    """
    recipe, out = prepared(folder, kind.changed, short=short), folder / f"record-{seed}"
    sought = {"space": dict(kind.space), "random": 1.0, "members": 1, "rungs": list(RUNGS), "seed": seed}
    with opened(with_search(recipe, trials=2 if short else BLOCK, **sought), out, Everything) as searching:
        found = searching.trials()
        searching.close()
    spent = {
        (e["trial"], e["rung"]): e["seconds"] for e in read_events(out / "events.jsonl") if e["event"] == "TrialReached"
    }
    return [
        {
            "seed": seed,
            "graph": each.number,
            "point": json.dumps(dict(each.point)),
            "params": int(each.costs["params"]),
            "accuracy": list(each.values),
            "seconds": [spent[each.number, rung] for rung in range(len(RUNGS))],
            "machine": machine(),
            "commit": commit(),
        }
        for each in found
        if len(each.values) == len(RUNGS)
    ]


def main(count: int, kind: Kind = GRAPHS_ALONE) -> None:
    """Make the blocks that are not in a record yet."""
    for seed in range(kind.first, kind.first - (-count // BLOCK)):
        known = pq.read_table(kind.path).to_pylist() if kind.path.exists() else []
        if seed not in [each["seed"] for each in known]:
            pq.write_table(pa.Table.from_pylist([*known, *block(seed, FOLDER, kind)]), kind.path)


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    main(number, KINDS[sys.argv[2]] if len(sys.argv) > 2 else GRAPHS_ALONE)

"""The tabular record of the search benchmark: some hundreds of single graphs, each trained once, looked at after every
rung's epochs. Searches are replayed on it, and random search is it, in any order.

Resumable: call it again, or with a larger number, and it goes on.

    python -m benchmarks.search_record [NUMBER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import RESULTS, commit, machine
from benchmarks.search_task import FOLDER, GRAPHS, RUNGS, prepared, trials, with_search
from stillhouse.foundation.history import read_events
from stillhouse.runner.search.hunt import Hunt
from stillhouse.study.record import Trial
from stillhouse.study.rungs import Job

RECORD = RESULTS / "search_record.parquet"
_SEED = 100


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


def made(number: int, folder: Path, *, short: bool = False) -> pa.Table:
    """So many graphs, drawn at random from the family parameters' ranges, taught by the task's fixed settings.

    Columns: ``graph`` (its number), ``point`` (JSON), ``params``; at each rung ``accuracy``, and ``seconds`` of
    training and looking.
    """
    recipe = prepared(folder, short=short)
    sought = {"space": dict(GRAPHS), "random": 1.0, "members": 1, "rungs": list(RUNGS), "seed": _SEED}
    out = folder / "record"
    found = trials(with_search(recipe, trials=number, **sought), out, Everything)
    spent = {
        (e["trial"], e["rung"]): e["seconds"] for e in read_events(out / "events.jsonl") if e["event"] == "TrialReached"
    }
    rows = [
        {
            "graph": each.number,
            "point": json.dumps(dict(each.point)),
            "params": int(each.costs["params"]),
            "accuracy": list(each.values),
            "seconds": [spent[each.number, rung] for rung in range(len(RUNGS))],
        }
        for each in found
        if len(each.values) == len(RUNGS)
    ]
    told = {"rungs": json.dumps(RUNGS), "machine": machine(), "commit": commit()}
    return pa.Table.from_pylist(rows).replace_schema_metadata(told)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    pq.write_table(made(count, FOLDER), RECORD)

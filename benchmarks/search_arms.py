"""The live searches of the search benchmark: ours, also with points drawn at random, and without loss kinds and
augmentation; each half of it alone; with no teacher; by evolution. And ours where nobody pads: the task's padding is
the usual one, but as it turned out, after so few epochs none is better (``search_record unpadded``), which else only
searches of the padding find out.

All have the task's data, teacher, stored answers, budget and longest training. What an arm does not search stands in
the task's recipe: a learning rate that was chosen for random graphs, usual values for temperature, weight and padding
(two pixels of 16 are the four of 32 that CIFAR-10 usually has). All but evolution begin with the recipe's own point.
Seeds are those of the search: what it proposes and which members it draws. Teacher, split, initial weights and order of
the samples are the same in all of them, so what their spread leaves out is another training problem. Seed 0 is left
out: by it the sampler was chosen. A search that is in the results is not made again, and none is made for another
teacher or other data than those of the others.

    python -m benchmarks.search_arms [ARM ...]
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, commit, machine
from benchmarks.search_task import (
    BOTH,
    FOLDER,
    GRAPHS,
    MORE,
    NO_PADDING,
    RUNGS,
    TEACHING,
    opened,
    prepared,
    with_search,
)
from stillhouse.foundation.history import read_events
from stillhouse.foundation.seeding import subseed
from stillhouse.models.graphs.member import member
from stillhouse.models.weights import weights_digest
from stillhouse.recipe.random_graph import RandomGraphOptions
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.search.hunt import Hunt
from stillhouse.study.record import Trial
from stillhouse.study.sampling import Proposal, drawn, subseed_of
from stillhouse.study.space import Point, varied

ARMS = RESULTS / "search_arms.jsonl"
SEEDS = range(1, 6)
_SEED = "student.model.options.seed"
_POPULATION, _TOURNAMENT, _DRAWS = 12, 4, 1000


class Evolution(Hunt):
    """Regularised evolution (arXiv 1802.01548) over single graphs: the parent is the best of a few of the youngest, a
    child differs in one key or in its graphs' seed. No network is trained twice: what says the same network in other
    words is drawn again.
    """

    def proposal(self) -> Proposal:
        """A child, once there are enough; else a graph at random."""
        trials, recipe = self.record.trials(), self.materials.recipe
        seed = subseed_of(recipe, len(trials))
        chance = random.Random(subseed(seed, "evolution"))
        living = [each for each in trials if each.values][-_POPULATION:]
        tried = [self.network(each.point) for each in trials]
        for draw in itertools.count():
            fresh = drawn(self.space, recipe, subseed(seed, "draw", draw))
            if len(living) == _POPULATION:
                parent = max(chance.sample(living, _TOURNAMENT), key=lambda each: each.values[-1])
                key = chance.choice(sorted(parent.point))
                fresh = {**parent.point, key: fresh[key]}
            if self.network(fresh) not in tried or draw == _DRAWS:
                return Proposal(fresh, {}, {})
        raise AssertionError

    def network(self, point: Point) -> object:
        """What makes a point's network another than the next: its graphs, not what drew them."""
        options = RandomGraphOptions(**{**varied(self.materials.recipe, point).student.model.options, "graphs": None})
        return member(options).digest, options.model_dump(exclude={"seed", "top", "middle", "bottom"})


@dataclass(frozen=True)
class Arm:
    """A way to search.

    Attributes:
        search: settings of the search.
        changed: what is otherwise than in the task's recipe.
    """

    search: Mapping[str, Any]
    changed: Sequence[str] = ()
    kind: Callable[..., Hunt] = Hunt

    def recipe(self, folder: Path, seed: int, *, short: bool) -> Recipe:
        """Of its search with a seed."""
        return with_search(prepared(folder, self.changed, short=short), seed=seed, **self.search)


_HALVING = {"trials": 48, "members": 1, "rungs": list(RUNGS[1:])}
_RATE, _KIND = "student.train.optimizer.learning_rate", "objective.kd.kind"
KINDS: Mapping[str, Arm] = {
    "ours": Arm({**_HALVING, "space": {**BOTH, **MORE}}),
    "drawn": Arm({**_HALVING, "space": {**BOTH, **MORE}, "random": 1.0}),
    "fewer": Arm({**_HALVING, "space": dict(BOTH)}),
    "graphs": Arm({**_HALVING, "space": dict(GRAPHS)}),
    "teaching": Arm({**_HALVING, "space": {**TEACHING, **MORE}}),
    "no_kd": Arm(
        {**_HALVING, "space": {**GRAPHS, _RATE: TEACHING[_RATE]}},
        ("objective.cross_entropy=1.0", "objective.kd=null"),
    ),
    "unpadded": Arm({**_HALVING, "space": {**BOTH, _KIND: MORE[_KIND]}}, NO_PADDING),
    "evolution": Arm(
        {"trials": 50, "members": 1, "rungs": [RUNGS[-1]], "random": 1.0}
        | {"space": {**GRAPHS, _SEED: {"low": 0, "high": 2**31 - 1}}},
        kind=Evolution,
    ),
}


def curve(events: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Best accuracy of a network trained to the end, and what all training cost until then, in such networks."""
    found, epochs, best = list[tuple[float, float]](), 0.0, 0.0
    told = set[tuple[int, int]]()
    for event in events:
        if event["event"] == "TrialEnded":
            epochs += event["trained_epochs"]
        elif event["event"] == "TrialReached" and (event["trial"], event["rung"]) not in told:  # a kill tells it twice
            told.add((event["trial"], event["rung"]))
            epochs += event["trained_epochs"]
            if event["epochs"] == RUNGS[-1]:
                best = max(best, *event["members"])
                found.append((epochs / RUNGS[-1], best))
    return found


def searched(name: str, seed: int, folder: Path, *, short: bool = False) -> dict[str, Any]:
    """One search, as a row."""
    recipe = KINDS[name].recipe(folder, seed, short=short)
    if short:
        recipe = with_search(recipe, trials=3)
    out = folder / f"{name}-{seed}"
    with opened(recipe, out, KINDS[name].kind) as searching:
        trials: list[Trial] = searching.trials()
        shared = {
            "teacher": weights_digest(searching.teacher)[:16],
            "data": searching.materials.data.survey.digest[:16],
        }
        searching.close()
    best = max((each for each in trials if each.values), key=lambda each: (len(each.values), each.values[-1]))
    told = {"arm": name, "seed": seed, "curve": curve(read_events(out / "events.jsonl")), "best": dict(best.point)}
    return {**told, **shared, "machine": machine(), "commit": commit()}


def known() -> list[dict[str, Any]]:
    """The rows that are there."""
    return [json.loads(line) for line in ARMS.read_text().splitlines()] if ARMS.exists() else []


def main(names: Sequence[str]) -> None:
    """Make what is not there, seed by seed."""
    for seed in SEEDS:
        for name in names:
            if (name, seed) not in [(each["arm"], each["seed"]) for each in known()]:
                row = searched(name, seed, FOLDER)
                others = {(each["teacher"], each["data"]) for each in known()} - {(row["teacher"], row["data"])}
                assert not others, f"{ARMS.name} has rows of another teacher or other data: {others}"
                with ARMS.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(KINDS))

"""The best mix: one alternative for each block, least harm under the budgets, by mixed-integer programming (HiGHS).

The harm of a mix is the sum of what each alternative does alone, and of what two neighbours do together beyond that,
where it was measured (Puzzle, arXiv 2411.19146, sums the first). The programme is linear: a pair has a variable of its
own that is 1 where both are chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

Mix = tuple[str, ...]
"""The name of the alternative chosen for each block, front to back."""


@dataclass(frozen=True)
class Option:
    """An alternative for a block, the teacher's own block among them.

    Attributes:
        name: unique among its block's.
        harm: what it does alone, in the teacher, to the loss on validation samples; 0 for the teacher's own.
        costs: by measure (``params``, ``macs``, ``bytes``, ``latency_ms``).
    """

    name: str
    harm: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Problem:
    """What is to be chosen from.

    Attributes:
        blocks: the options of each.
        limits: the most that the chosen options may cost together, by measure.
        together: harm beyond the sum, of two neighbours: (number of the first, its option, the second's) -> loss.
    """

    blocks: Sequence[Sequence[Option]]
    limits: Mapping[str, float] = field(default_factory=dict)
    together: Mapping[tuple[int, str, str], float] = field(default_factory=dict)

    def cost(self, mix: Mix, measure: str) -> float:
        """What a mix costs."""
        return sum(option.costs[measure] for option in self._options(mix))

    def harm(self, mix: Mix) -> float:
        """What a mix is expected to do."""
        pairs = sum(self.together.get((at, mix[at], mix[at + 1]), 0.0) for at in range(len(mix) - 1))
        return sum(option.harm for option in self._options(mix)) + pairs

    def least(self, measure: str) -> float:
        """The least that any mix costs."""
        return sum(min(option.costs[measure] for option in options) for options in self.blocks)

    def _options(self, mix: Mix) -> Iterator[Option]:
        for options, name in zip(self.blocks, mix, strict=True):
            yield next(option for option in options if option.name == name)


def best(problem: Problem, count: int = 1) -> list[Mix]:
    """The least harmful mixes within the limits, best first: ``count``, or as many as there are."""
    columns = [(at, option) for at, options in enumerate(problem.blocks) for option in options]
    place = {(at, option.name): number for number, (at, option) in enumerate(columns)}
    pairs = [(place[at, one], place[at + 1, other], harm) for (at, one, other), harm in problem.together.items()]
    width, total = len(columns), len(columns) + len(pairs)
    harms = np.array([option.harm for _, option in columns] + [harm for _, _, harm in pairs])
    rows: list[dict[int, float]] = []
    low: list[float] = []
    high: list[float] = []

    def constrain(row: dict[int, float], at_least: float, at_most: float) -> None:
        rows.append(row)
        low.append(at_least)
        high.append(at_most)

    for at in range(len(problem.blocks)):
        constrain({number: 1.0 for number, (own, _) in enumerate(columns) if own == at}, 1.0, 1.0)
    for measure, limit in problem.limits.items():
        scale = max(limit, 1e-12)
        constrain({number: option.costs[measure] / scale for number, (_, option) in enumerate(columns)}, 0.0, 1.0)
    for number, (one, other, _) in enumerate(pairs, width):
        constrain({number: 1.0, one: -1.0}, -np.inf, 0.0)
        constrain({number: 1.0, other: -1.0}, -np.inf, 0.0)
        constrain({number: 1.0, one: -1.0, other: -1.0}, -1.0, np.inf)
    found: list[Mix] = []
    while len(found) < count:
        matrix = _matrix(rows, total)
        answer = milp(
            harms,
            constraints=LinearConstraint(matrix, np.array(low), np.array(high)),
            integrality=np.ones(total),
            bounds=Bounds(0, 1),
        )
        if answer.x is None:
            break
        chosen = [number for number in range(width) if answer.x[number] > 0.5]
        found.append(tuple(columns[number][1].name for number in chosen))
        constrain(dict.fromkeys(chosen, 1.0), -np.inf, len(chosen) - 1.0)  # not this one again
    return found


def front(problem: Problem, measure: str, points: int = 12) -> list[Mix]:
    """The best mixes for budgets of ``measure`` from the least to the most possible, each so many times the one before,
    cheapest first; limits hold.
    """
    low = problem.least(measure)
    high = sum(max(option.costs[measure] for option in options) for options in problem.blocks)
    found: list[Mix] = []
    for limit in np.geomspace(max(low, high * 1e-4), high, points):
        limits = {**problem.limits, measure: float(limit) * (1 + 1e-9)}
        for mix in best(Problem(problem.blocks, limits, problem.together)):
            if mix not in found:
                found.append(mix)
    return found


def _matrix(rows: Sequence[Mapping[int, float]], width: int) -> csr_array:
    entries = [(number, column, value) for number, row in enumerate(rows) for column, value in row.items()]
    at, columns, values = (np.array(each) for each in zip(*entries, strict=True))
    return csr_array((values, (at, columns)), shape=(len(rows), width))

"""The best mix of alternatives."""

from __future__ import annotations

from itertools import pairwise, product
from random import Random

import pytest

from stillhouse.blocks.choose import Option, Problem, best, front


def problem_of(seed: int) -> Problem:
    """A few blocks of a few options, with limits and with pairs that do more, or less, harm together."""
    dice = Random(seed)
    blocks = [
        [
            Option("keep", 0.0, {"params": 10 + dice.random(), "macs": 5.0}),
            *(
                Option(f"other-{number}", dice.random(), {"params": 9 * dice.random(), "macs": 5 * dice.random()})
                for number in range(dice.randint(1, 3))
            ),
        ]
        for _ in range(dice.randint(2, 5))
    ]
    together = {
        (at, one.name, other.name): dice.uniform(-0.3, 0.5)
        for at in range(len(blocks) - 1)
        for one in blocks[at]
        for other in blocks[at + 1]
        if dice.random() < 0.4
    }
    limit = dice.uniform(0.1, 0.9) * sum(options[0].costs["params"] for options in blocks)
    return Problem(blocks, {"params": limit}, together)


@pytest.mark.parametrize("seed", range(40))
def test_the_best_are_found(seed: int) -> None:
    """The best three are those that trying every mix finds."""
    problem = problem_of(seed)
    names = [[option.name for option in options] for options in problem.blocks]
    within = [mix for mix in product(*names) if problem.cost(mix, "params") <= problem.limits["params"]]
    wanted = sorted(problem.harm(mix) for mix in within)[:3]
    assert [problem.harm(mix) for mix in best(problem, 3)] == pytest.approx(wanted, abs=1e-7)


def test_a_budget_that_nothing_meets() -> None:
    """Then there is no mix, and the least that can be reached is known."""
    problem = problem_of(0)
    tight = Problem(problem.blocks, {"params": 0.9 * problem.least("params")})
    assert best(tight) == []
    assert best(Problem(problem.blocks, {"params": 1.001 * problem.least("params")}))


@pytest.mark.parametrize("seed", range(5))
def test_the_front(seed: int) -> None:
    """Cheaper mixes do more harm: nothing on the front is worse than another point in both."""
    problem = problem_of(seed)
    free = Problem(problem.blocks, {}, problem.together)
    points = [(free.cost(mix, "macs"), free.harm(mix)) for mix in front(free, "macs")]
    assert len(points) > 1 and points == sorted(points)
    assert all(after[1] <= before[1] for before, after in pairwise(points))

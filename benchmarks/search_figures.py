"""What searches cost until they were as good as so many random graphs, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.foundation.seeding import subseed

REACHED = 100
TABLE = (5, 10, 20, 50, 100, 200)
_RESAMPLED = 1000

Curve = Sequence[tuple[float, float]]
"""A search: at each network that it trained to the end what all its trainings cost until then, in such networks, and
the best accuracy so far."""

Values = NDArray[np.float64]

Draw = Callable[[np.random.Generator], Any]
"""A sample, drawn anew."""


def different(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of a record, each network once: the same graphs with the same weights do the same at all rungs."""
    return list({tuple(each["accuracy"]): each for each in rows}.values())


def best_of(end: Values, count: int) -> float:
    """Mean over all orders of the best of the first ``count``."""
    ranked, size = np.sort(end)[::-1], len(end)
    shares = [math.comb(size - place - 1, count - 1) / math.comb(size, count) for place in range(size - count + 1)]
    return float(np.dot(ranked[: len(shares)], shares))


def reached(curve: Curve, target: float) -> float:
    """What a search cost until a network was as accurate; infinite where none was."""
    return next((cost for cost, best in curve if best >= target), math.inf)


def times_fewer(end: Values, curves: Sequence[Curve], count: int = REACHED) -> float:
    """How many fewer networks the median search takes than random search over single graphs, until as good as the best
    of so many of those; 0 where half of the searches never are.
    """
    target = best_of(end, count)
    return count / statistics.median(reached(each, target) for each in curves)


def times_more(ours: Sequence[Curve], theirs: Sequence[Curve]) -> tuple[float, float, float]:
    """What the median search of theirs costs until it is as good as at its end, over what ours costs until then, and
    both; 0 where half of ours never are.
    """
    target = statistics.median(each[-1][1] for each in theirs)
    mine, rival = (statistics.median(reached(each, target) for each in curves) for curves in (ours, theirs))
    return (rival / mine if math.isfinite(mine) else 0.0), mine, rival


def interval(of: Callable[..., float], *draws: Draw) -> tuple[float, float]:
    """The middle 90 % of a figure over samples drawn anew, each by itself."""
    chance = np.random.default_rng(subseed(0, "resampled"))
    found = [of(*(draw(chance) for draw in draws)) for _ in range(_RESAMPLED)]
    low, high = np.quantile(found, (0.05, 0.95))
    return round(float(low), 2), round(float(high), 2)


def again(searches: Sequence[Curve]) -> Draw:
    """As many of the searches, some of them twice."""
    return lambda chance: [searches[at] for at in chance.integers(len(searches), size=len(searches))]


def half(end: Values, least: int) -> Draw:
    """Half of the networks, none twice: by a network that is there twice the best of many would be worse. What is
    unbiased varies among halves as it does among wholes.

    Args:
        least: so many at least; where that is more than half of them, they vary less than they should.
    """
    return lambda chance: chance.choice(end, size=max(least, len(end) // 2), replace=False)

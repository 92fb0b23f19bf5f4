"""Which family promises the best member, of those whose members were trained to the highest rung.

New members are drawn and the best of them is taken, so a family's spread counts beside its mean: of k draws the best is
expected so many deviations above the mean. A spread of two or three members is mostly chance; it is drawn towards that
of all families.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

_BELIEVED = 4
"""The spread that all families have in common counts as if so many more members had been seen."""


def promises(members: Sequence[Sequence[float]], draws: Sequence[int]) -> list[float]:
    """The expected value of the best of new members, for each family.

    Args:
        members: [families][members] values; one at least of each.
        draws: of each family, how many different members would be drawn.
    """
    means = [statistics.fmean(each) for each in members]
    squares = [sum((value - mean) ** 2 for value in each) for each, mean in zip(members, means, strict=True)]
    free = [len(each) - 1 for each in members]
    common = sum(squares) / sum(free) if any(free) else 0.0
    found = list[float]()
    for mean, square, own, count in zip(means, squares, free, draws, strict=True):
        variance = (_BELIEVED * common + square) / (_BELIEVED + own)
        found.append(mean + _above(count) * variance**0.5)
    return found


def _above(draws: int) -> float:
    """The expected maximum of so many standard normal values (Blom's approximation)."""
    return statistics.NormalDist().inv_cdf((draws - 0.375) / (draws + 0.25))

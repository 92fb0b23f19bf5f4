"""Channels of each stage for a number of parameters, found by counting the built network.

A whole number of channels rarely meets a budget: eight channels may be too few where nine are a quarter too many. So
stages are widened one by one where widening all of them would go beyond, and if that is not enough, channels are
shifted between stages.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from stillhouse.foundation.errors import ModelError


class TooFewError(ModelError):
    """A budget that the smallest network does not meet; it has ``least`` parameters."""

    def __init__(self, message: str, least: int) -> None:
        super().__init__(message)
        self.least = least


class BetweenError(ModelError):
    """A number of parameters that no width comes near; the widest below it has ``reached``."""

    def __init__(self, message: str, reached: int) -> None:
        super().__init__(message)
        self.reached = reached


TOLERANCE = 0.05
"""Share of the budget that a random graph may leave over."""

_LEAST = 2.0
_MOST = 4096.0
_FINE = 1e-3
_FEW_STAGES = 3

Widths = tuple[int, ...]


def solved(
    params: int,
    shape: Sequence[float],
    count: Callable[[Widths], int],
    tolerance: float = TOLERANCE,
    least: float = _LEAST,
) -> Widths:
    """The widest network within a budget.

    Args:
        params: the most that it may have.
        shape: channels of each stage over those of the first; kept as nearly as the budget allows.
        count: parameters of the network with these channels; more channels never have less. It is asked often: see
            :func:`polynomial`.
        tolerance: share of the budget that may be left over.
        least: channels of the first stage.

    Raises:
        TooFewError: the smallest network is larger.
        BetweenError: what fits is smaller than that.
        ModelError: the widest network is smaller.
    """

    def of(base: float) -> Widths:
        return scaled(base, shape)

    low, high = least, least
    if (smallest := count(of(low))) > params:
        raise TooFewError(
            f"params: {params:,} is too few: with {of(low)} channels it has {smallest:,} already", smallest
        )
    while count(of(high)) <= params:
        low, high = high, 2 * high
        if high > _MOST:
            raise ModelError(f"params: {params:,} is too many: with {of(low)} channels it has {count(of(low)):,} only")
    while high / low > 1 + _FINE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if count(of(middle)) <= params else (low, middle)
    found = _widened(of(low), params, count)
    if count(found) < (1 - tolerance) * params:
        found = _shifted(found, params, count)
    if (reached := count(found)) < (1 - tolerance) * params:
        raise BetweenError(
            f"params: none of its widths has about {params:,}: with {found} channels it has {reached:,}, and with one "
            f"more anywhere too many; {reached:,} or somewhat more can be had",
            reached,
        )
    return found


def polynomial(count: Callable[[Widths], int], stages: int, probes: Sequence[int] = (7,)) -> Callable[[Widths], int]:
    """The same count without building a network each time, where it is a polynomial of degree two in the widths: of
    convolutions and norms it is. What it says is compared with networks that are built; else ``count`` itself.

    Args:
        probes: channels of the first stage of each of those; a wide one finds out networks that round their widths.
    """
    start = (2,) * stages

    def at(*raised: int) -> int:
        return count(tuple(width + raised.count(stage) for stage, width in enumerate(start)))

    least, one = at(), [at(stage) for stage in range(stages)]
    two = [at(stage, stage) for stage in range(stages)]
    mixed = {
        (i, j): at(i, j) - one[i] - one[j] + least for i, j in itertools.combinations(range(stages), 2)
    }  # fmt: skip

    def told(widths: Widths) -> int:
        by = [width - 2 for width in widths]
        alone = sum(
            by[i] * (one[i] - least) + by[i] * (by[i] - 1) // 2 * (two[i] - 2 * one[i] + least) for i in range(stages)
        )
        return least + alone + sum(by[i] * by[j] * each for (i, j), each in mixed.items())

    built = [tuple(first + 4 * stage for stage in range(stages)) for first in probes]
    return told if all(told(each) == count(each) for each in built) else count


def _shifted(widths: Widths, params: int, count: Callable[[Widths], int]) -> Widths:
    """The widest of those that differ by a few channels in any stage, up or down."""
    down, up = (3, 4) if len(widths) <= _FEW_STAGES else (1, 2)
    every = itertools.product(*(range(max(1, width - down), width + up + 1) for width in widths))
    fitting = [(size, each) for each in every if (size := count(each)) <= params]
    return max(fitting, default=(0, widths))[1]


def grown(stages: int, growth: float) -> tuple[float, ...]:
    """The shape of so many stages, each so many times as wide as the one before."""
    return tuple(growth**stage for stage in range(stages))


def scaled(base: float, shape: Sequence[float]) -> Widths:
    """Channels of each stage, ``base`` in the first."""
    return tuple(max(1, round(base * each)) for each in shape)


def _widened(widths: Widths, params: int, count: Callable[[Widths], int]) -> Widths:
    """Each stage in turn widened by one channel, as long as any fits; the narrowest by its neighbours first."""
    grown = True
    while grown:
        grown = False
        for stage in range(len(widths)):
            wider = (*widths[:stage], widths[stage] + 1, *widths[stage + 1 :])
            if count(wider) <= params:
                widths, grown = wider, True
    return widths

"""Who trains which blocks: consecutive ones to each worker, the slowest as fast as can be.

Each worker gets what the blocks before its own put out, hands on what its own put out, and trains then (Pipe-BD's
relay, arXiv 2301.12443): nobody waits for anybody but by the slowest one's pace. A stretch of blocks that is too much
for one worker is given to several: they share its alternatives among them, each passing the activations through the
teacher's blocks itself; or, where that is faster, each then learns from a part of every batch, and they add up
gradients. Where links are too slow for activations every worker has a prefix of the teacher of its own instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

Together = Literal["alone", "alternatives", "batches"]


@dataclass(frozen=True)
class BlockTimes:
    """One block, as measured on one worker; seconds a batch.

    Attributes:
        teacher_s: the teacher's block alone.
        train_s: one step of each alternative.
        weights_bytes: of the alternatives' parameters together: what gradients weigh.
        output_bytes: of the activation that it hands on.
        fixed_s: part of what training takes that a smaller batch would take, too.
    """

    teacher_s: float
    train_s: tuple[float, ...]
    weights_bytes: int
    output_bytes: int
    fixed_s: float = 0.0


@dataclass(frozen=True)
class Share:
    """Blocks ``first`` to ``last`` on ``workers`` workers, and the time that a batch takes there."""

    first: int
    last: int
    workers: int
    together: Together
    step_s: float


@dataclass(frozen=True)
class Plan:
    """Who does what.

    Attributes:
        shares: front to back.
        relayed: whether activations are handed on; else every worker has its own prefix.
        step_s: predicted time of a batch, of all.
        efficiency: what one worker alone would need, over ``step_s`` times the number of workers.
    """

    shares: tuple[Share, ...]
    relayed: bool
    step_s: float
    efficiency: float


def plan(
    blocks: Sequence[BlockTimes],
    workers: int,
    link_bytes_s: float,
    load_s: float = 0.0,
    parts_max: int | None = None,
) -> Plan:
    """The plan with the shortest step.

    Args:
        link_bytes_s: between two workers.
        load_s: making a batch; only who has the first block does that, or everybody who has a prefix.
        parts_max: parts that a batch is cut into, of which each who shares it takes some; None: any number.
    """
    alone_s = load_s + sum(each.teacher_s + sum(each.train_s) for each in blocks)
    candidates = [_divided(blocks, workers, link_bytes_s, load_s, relayed, parts_max) for relayed in (True, False)]
    shares, relayed = min(zip(candidates, (True, False), strict=True), key=lambda each: _slowest(each[0]))
    step_s = _slowest(shares)
    return Plan(shares, relayed, step_s, alone_s / (step_s * workers))


def _slowest(shares: Sequence[Share]) -> float:
    return max(each.step_s for each in shares)


def _divided(
    blocks: Sequence[BlockTimes],
    workers: int,
    link_bytes_s: float,
    load_s: float,
    relayed: bool,
    parts_max: int | None,
) -> tuple[Share, ...]:
    """The best division: best(n, g) is the least time that the slowest needs, of the first n blocks on g workers."""

    @cache
    def cost(first: int, last: int, count: int) -> tuple[float, Together]:
        own = blocks[first : last + 1]
        entry_s = load_s if first == 0 else blocks[first - 1].output_bytes / link_bytes_s if relayed else 0.0
        if not relayed and first > 0:
            entry_s = load_s + sum(each.teacher_s for each in blocks[:first])
        exit_s = own[-1].output_bytes / link_bytes_s if relayed and last < len(blocks) - 1 else 0.0
        teacher_s = sum(each.teacher_s for each in own)
        if count == 1:
            return entry_s + teacher_s + sum(sum(each.train_s) for each in own) + exit_s, "alone"
        split_s = entry_s + teacher_s + _spread([each for block in own for each in block.train_s], count) + exit_s
        if parts_max is not None and count > parts_max:
            return split_s, "alternatives"
        # Each sends all gradients but its own slice's, and gets that slice's sums: a ring's traffic.
        traffic_s = 2 * (count - 1) / count * sum(each.weights_bytes for each in own) / link_bytes_s
        fixed_s, train_s = sum(each.fixed_s for each in own), sum(sum(each.train_s) for each in own)
        most = 1 / count if parts_max is None else -(-parts_max // count) / parts_max
        # The teacher's pass is of the whole batch: a part of it might have other bits.
        batches_s = entry_s + teacher_s + fixed_s + (train_s - fixed_s) * most + traffic_s + exit_s
        return (split_s, "alternatives") if split_s <= batches_s else (batches_s, "batches")

    @cache
    def best(upto: int, count: int) -> tuple[float, tuple[Share, ...]]:
        found: tuple[float, tuple[Share, ...]] = (float("inf"), ())
        for first in range(upto + 1):
            for own in range(1, count + 1):
                if (first == 0) != (own == count):
                    continue  # whoever is before it has the others
                before_s, shares = best(first - 1, count - own) if first else (0.0, ())
                step_s, together = cost(first, upto, own)
                slowest_s = max(before_s, step_s)
                if slowest_s < found[0]:
                    found = slowest_s, (*shares, Share(first, upto, own, together, step_s))
        return found

    return min((best(len(blocks) - 1, count) for count in range(1, workers + 1)), key=lambda each: each[0])[1]


def _spread(parts_s: Sequence[float], count: int) -> float:
    """Time of the busiest of ``count`` workers, longest parts first to whoever has least."""
    loads = [0.0] * count
    for each in sorted(parts_s, reverse=True):
        loads[loads.index(min(loads))] += each
    return max(loads)

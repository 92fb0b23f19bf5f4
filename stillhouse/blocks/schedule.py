"""Who trains which replacements: consecutive ones to each worker, the slowest as fast as can be.

Each worker gets what the blocks before its own put out, hands on what its own put out, and trains then (Pipe-BD's
relay, arXiv 2301.12443): nobody waits for anybody but by the slowest one's pace. A block whose alternatives are too
much for one worker is where it hands over to the next: it trains some of them and hands on what goes into the block, so
that both run the teacher's block. One replacement heavier than all that is given to several workers: each learns from a
part of every batch, and they add up gradients. Where links are too slow for activations every worker has a prefix of
the teacher of its own instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

_PRECISION = 1e-4
_BOUNDS = 8
_REACH = 0.1
_TRIED_MAX = 8
_SUBSETS_OF = 8


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
    """What one worker trains, or several together.

    Attributes:
        first: the block at which it takes over.
        own: what is trained, by numbers of block and alternative.
        next_first: the block whose input it hands on; None: nobody comes after it.
        workers: more than one: each learns from a part of every batch.
        step_s: the time that a batch takes there.
    """

    first: int
    own: tuple[tuple[int, int], ...]
    next_first: int | None
    workers: int
    step_s: float

    @property
    def last(self) -> int:
        """The last block that it has to do with."""
        return max([self.first, *(block for block, _ in self.own), (self.next_first or 0) - 1])


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
    input_bytes: int = 0,
) -> Plan:
    """The plan with the shortest step that filling one worker after another finds.

    Args:
        blocks: up to the last one that has alternatives.
        link_bytes_s: between two workers.
        load_s: making a batch; only who has the first block does that, or everybody who has a prefix.
        parts_max: parts that a batch is cut into, of which each who shares it takes some; None: any number.
        input_bytes: of a batch.
    """
    alone_s = load_s + sum(each.teacher_s + sum(each.train_s) for each in blocks)
    most = workers if parts_max is None else min(workers, parts_max)
    found = []
    for relayed in (True, False):
        row = _Row(blocks, link_bytes_s, load_s, parts_max, input_bytes, relayed)
        found.append((_divided(row, workers, most, alone_s), relayed))
    shares, relayed = min(found, key=lambda each: _slowest(each[0]))
    step_s = _slowest(shares)
    return Plan(shares, relayed, step_s, alone_s / (step_s * workers))


def _slowest(shares: Sequence[Share]) -> float:
    return max(each.step_s for each in shares)


def _divided(row: _Row, workers: int, most: int, alone_s: float) -> tuple[Share, ...]:
    """Shares for so many workers or fewer, by halving the time that each of them may need."""
    found = _Filling(row, float("inf"), most).shares(row.whole, 1)
    assert found is not None
    low_s, high_s = alone_s / workers, _slowest(found)
    while high_s - low_s > _PRECISION * high_s:
        step_s = (low_s + high_s) / 2
        if (better := _Filling(row, step_s, most).shares(row.whole, workers)) is None:
            low_s = step_s
        else:
            found, high_s = better, min(step_s, _slowest(better))
    for number in range(1, _BOUNDS):  # what a time fails at a shorter one may allow: other subsets fill it
        step_s = high_s * (1 - _REACH * (1 - number / _BOUNDS))
        if (better := _Filling(row, step_s, most).shares(row.whole, workers)) is not None:
            return better
    return found


_Left = tuple[int, tuple[int, ...]]
"""A block, and those of its alternatives that nobody before trains."""


class _Row:
    """All blocks, and what a stretch of them takes on one worker, or on several together."""

    def __init__(
        self,
        blocks: Sequence[BlockTimes],
        link_bytes_s: float,
        load_s: float,
        parts_max: int | None,
        input_bytes: int,
        relayed: bool,
    ) -> None:
        self.blocks, self._load_s, self._parts_max, self._relayed = blocks, load_s, parts_max, relayed
        self._link_bytes_s = link_bytes_s
        self._enters_s = [each / link_bytes_s for each in (input_bytes, *(each.output_bytes for each in blocks))]
        self._before_s = [0.0, *accumulate(each.teacher_s for each in blocks)]
        own_s = [sum(each.train_s) for each in blocks]
        self._after_s = [*accumulate(reversed([each.teacher_s + own for each, own in zip(blocks, own_s, strict=True)]))]
        self._after_s = [*reversed(self._after_s), 0.0]
        self.whole: _Left = (0, tuple(range(len(blocks[0].train_s))))

    def of(self, at: int) -> tuple[int, ...]:
        """All alternatives of a block."""
        return tuple(range(len(self.blocks[at].train_s)))

    def left_s(self, left: _Left) -> float:
        """The work that is left, were nothing done twice."""
        at, alternatives = left
        block = self.blocks[at]
        return block.teacher_s + sum(block.train_s[which] for which in alternatives) + self._after_s[at + 1]

    def entry_s(self, left: _Left) -> float:
        """Making a batch, or getting what goes into a block; of a prefix, running it."""
        at = left[0]
        if left == self.whole or (at == 0 and not self._relayed):
            return self._load_s
        return self._enters_s[at] if self._relayed else self._load_s + self._before_s[at]

    def exit_s(self, at: int) -> float:
        """Handing on what goes into a block."""
        return self._enters_s[at] if self._relayed and at < len(self.blocks) else 0.0

    def train_s(self, at: int, which: int, count: int) -> float:
        """A step of one alternative, on each of several workers that share it."""
        block = self.blocks[at]
        train_s = block.train_s[which]
        if count == 1:
            return train_s
        most = 1 / count if self._parts_max is None else -(-self._parts_max // count) / self._parts_max
        fixed_s, weights_bytes = (each / len(block.train_s) for each in (block.fixed_s, block.weights_bytes))
        # Each sends its micro-batches' gradients but its own slice's, and that slice's sum (``students.joined``).
        parts = count if self._parts_max is None else -(-self._parts_max // count) * count
        traffic_s = (parts / count + 1) * (count - 1) / count * weights_bytes / self._link_bytes_s
        return fixed_s + max(train_s - fixed_s, 0.0) * most + traffic_s


class _Filling:
    """Fills one worker after another up to a time."""

    def __init__(self, row: _Row, step_s: float, most: int) -> None:
        self._row, self._step_s, self._most = row, step_s, most
        self._known: dict[tuple[_Left, int], tuple[Share, ...] | None] = {}

    def shares(self, left: _Left, workers: int) -> tuple[Share, ...] | None:
        """Of what is left, for so many workers or fewer; None: they are too few."""
        key = left, workers
        if self._row.left_s(left) > workers * self._step_s * (1 + _PRECISION):
            return None
        if key not in self._known:
            self._known[key] = self._found(left, workers)
        return self._known[key]

    def _found(self, left: _Left, workers: int) -> tuple[Share, ...] | None:
        for count in range(1, min(self._most, workers) + 1):
            for share, rest in islice(self._stretches(left, count), _TRIED_MAX):
                if rest is None:
                    return (share,)
                if (others := self.shares(rest, workers - count)) is not None:
                    return (share, *others)
        return None

    def _stretches(self, left: _Left, count: int) -> Iterator[tuple[Share, _Left | None]]:
        """What several workers, or one, could take next, and what is left then: the furthest first."""
        row, end = self._row, len(self._row.blocks)
        at, alternatives = left
        taken: list[tuple[int, int]] = []
        spent_s, found = row.entry_s(left), list[tuple[Share, _Left | None]]()
        while at < end:
            spent_s += row.blocks[at].teacher_s
            costs_s = {which: row.train_s(at, which, count) for which in alternatives}
            some = _fullest(costs_s, self._step_s - spent_s - row.exit_s(at))
            if len(some) == len(alternatives) > 1 and row.exit_s(at) < row.exit_s(at + 1):
                some = some[:-1]  # what goes in is cheaper to hand on than what comes out
            if 0 < len(some) < len(alternatives):
                own = tuple(sorted([*taken, *((at, which) for which in some)]))
                took_s = spent_s + sum(costs_s[which] for which in some) + row.exit_s(at)
                rest = tuple(which for which in alternatives if which not in some)
                found.append((Share(left[0], own, at, count, took_s), (at, rest)))
            spent_s += sum(costs_s.values())
            if spent_s > self._step_s:
                break
            taken += [(at, which) for which in alternatives]
            at, exit_s = at + 1, row.exit_s(at + 1)
            if spent_s + exit_s <= self._step_s:
                after = (at, row.of(at)) if at < end else None
                found.append((Share(left[0], tuple(taken), at if after else None, count, spent_s + exit_s), after))
            alternatives = row.of(at) if at < end else ()
        return reversed(found)


def _fullest(costs_s: dict[int, float], room_s: float) -> tuple[int, ...]:
    """Of some alternatives those that together fill the room best: the longest while they fit, then of what is left
    the best of all subsets of a few.
    """
    chosen, left = list[int](), sorted(costs_s, key=lambda each: -costs_s[each])
    while len(left) > _SUBSETS_OF:
        which = left.pop(0)
        if costs_s[which] <= room_s:
            chosen, room_s = [*chosen, which], room_s - costs_s[which]
    sums: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for which in left:
        longer = ((spent_s + costs_s[which], (*some, which)) for spent_s, some in sums)
        sums += [each for each in longer if each[0] <= room_s]
    return (*chosen, *max(sums, key=lambda each: each[0])[1])

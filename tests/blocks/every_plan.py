"""The best of all plans, found by looking at each: for rows of a few blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from stillhouse.blocks.schedule import BlockTimes, Plan

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Row:
    """Blocks and what :func:`stillhouse.blocks.schedule.plan` is told besides, written down once more."""

    blocks: tuple[BlockTimes, ...]
    link_bytes_s: float
    load_s: float
    parts_max: int | None
    input_bytes: int

    def every(self) -> Pairs:
        """All that is to be trained."""
        return tuple((at, which) for at, each in enumerate(self.blocks) for which in range(len(each.train_s)))

    def train_s(self, at: int, which: int, count: int) -> float:
        """One alternative's step on each of several workers."""
        block, parts = self.blocks[at], self.parts_max
        if count == 1:
            return block.train_s[which]
        rows = -(-parts // count) if parts else 1
        most = rows / parts if parts else 1 / count
        fixed_s, size = block.fixed_s / len(block.train_s), block.weights_bytes / len(block.train_s)
        traffic_s = (rows + 1) * (count - 1) / count * size / self.link_bytes_s
        return fixed_s + max(block.train_s[which] - fixed_s, 0.0) * most + traffic_s

    def share_s(self, begin: tuple[int, bool], own: Pairs, after: int | None, count: int, relayed: bool) -> float:
        """A step of one share. ``begin``: its block, and whether it is the first share."""
        first, is_first = begin
        enters = [self.input_bytes, *(each.output_bytes for each in self.blocks)]
        before_s = sum(each.teacher_s for each in self.blocks[:first])
        entry_s = self.load_s if is_first else enters[first] / self.link_bytes_s if relayed else self.load_s + before_s
        last = len(self.blocks) - 1 if after is None else max([first, after - 1, *(at for at, _ in own)])
        teacher_s = sum(each.teacher_s for each in self.blocks[first : last + 1])
        exit_s = enters[after] / self.link_bytes_s if relayed and after is not None else 0.0
        return entry_s + teacher_s + sum(self.train_s(*pair, count) for pair in own) + exit_s

    def least_s(self, workers: int) -> float:
        """Of the slowest worker, in the best of all plans."""
        return min(self._least_s(workers, relayed) for relayed in (True, False))

    def _least_s(self, workers: int, relayed: bool) -> float:
        most = workers if self.parts_max is None else min(workers, self.parts_max)

        @cache
        def least(begin: tuple[int, bool], left: tuple[int, ...], workers: int) -> float:
            best_s = float("inf")
            for count in range(1, min(most, workers) + 1):
                for own, after, rest in self._stretches(begin[0], left):
                    own_s = self.share_s(begin, own, after, count, relayed)
                    if after is None:
                        best_s = min(best_s, own_s)
                    elif own_s < best_s and workers > count:
                        best_s = min(best_s, max(own_s, least((after, False), rest, workers - count)))
            return best_s

        return least((0, True), tuple(range(len(self.blocks[0].train_s))), workers)

    def _stretches(self, at: int, left: tuple[int, ...]) -> Iterator[tuple[Pairs, int | None, tuple[int, ...]]]:
        """What may be taken next, the block where the next one begins, and what of it is left."""
        taken: Pairs = ()
        while True:
            for size in range(1, len(left)):
                for some in combinations(left, size):
                    rest = tuple(which for which in left if which not in some)
                    yield (*taken, *((at, which) for which in some)), at, rest
            taken, at = (*taken, *((at, which) for which in left)), at + 1
            if at == len(self.blocks):
                yield taken, None, ()
                return
            left = tuple(range(len(self.blocks[at].train_s)))
            yield taken, at, left

    def check(self, found: Plan, workers: int) -> None:
        """Everything is trained once, each share takes what its parts take, and begins where the one before ends."""
        assert sorted(pair for each in found.shares for pair in each.own) == sorted(self.every())
        assert sum(each.workers for each in found.shares) <= workers
        ends: Sequence[int | None] = [each.next_first for each in found.shares]
        assert ends == [*(each.first for each in found.shares[1:]), None]
        for number, each in enumerate(found.shares):
            took_s = self.share_s((each.first, number == 0), each.own, each.next_first, each.workers, found.relayed)
            assert abs(took_s - each.step_s) < 1e-9 * took_s
        assert found.step_s == max(each.step_s for each in found.shares)

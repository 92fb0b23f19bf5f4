"""What each worker does, of a plan: which replacements it trains, from whom it gets activations, to whom it gives them.

Workers are numbered from the first share's on. Those that share the alternatives of a stretch deal them out, the
longest first, to whoever has least; in a stretch that they share by batches, each trains all of them, on its part of
every batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse.blocks.schedule import BlockTimes, Plan


@dataclass(frozen=True)
class Seat:
    """One worker's part.

    Attributes:
        first, last: blocks whose replacements it trains.
        own: (block, alternative) by number, of each that it trains.
        source: the worker that hands it what the blocks before put out; None: it makes batches itself.
        begin: the block at which its own pass of the teacher begins.
        targets: workers that want what its last block puts out.
        mates: workers that share each batch, this one among them; one alone where nobody does.
    """

    first: int
    last: int
    own: tuple[tuple[int, int], ...]
    source: int | None
    begin: int
    targets: tuple[int, ...]
    mates: tuple[int, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Seat:
        """What ``asdict`` made of one, after a journey as JSON."""
        pairs = tuple((int(block), int(which)) for block, which in values["own"])
        lists = {key: tuple(values[key]) for key in ("targets", "mates")}
        return cls(**{**values, "own": pairs, **lists})


def seats(plan: Plan, blocks: Sequence[BlockTimes]) -> list[Seat]:
    """One for each worker that has something to do."""
    places: list[list[int]] = []
    count = 0
    for share in plan.shares:
        places.append(list(range(count, count + share.workers)))
        count += share.workers
    return list(_seats(plan, blocks, places))


def _seats(plan: Plan, blocks: Sequence[BlockTimes], places: Sequence[Sequence[int]]) -> Iterator[Seat]:
    for at, (share, workers) in enumerate(zip(plan.shares, places, strict=True)):
        before = places[at - 1] if plan.relayed and at else []
        after = places[at + 1] if plan.relayed and at + 1 < len(places) else []
        every = [
            (block, which)
            for block in range(share.first, share.last + 1)
            for which in range(len(blocks[block].train_s))
        ]
        together = share.together == "batches"
        hands = [every] * share.workers if together else _dealt(every, blocks, share.workers)
        for number, (worker, own) in enumerate(zip(workers, hands, strict=True)):
            yield Seat(
                share.first,
                share.last,
                tuple(sorted(own)),
                before[number % len(before)] if before else None,
                share.first if before else 0,
                tuple(each for place, each in enumerate(after) if place % len(workers) == number),
                tuple(workers) if together else (worker,),
            )


def _dealt(every: Sequence[tuple[int, int]], blocks: Sequence[BlockTimes], count: int) -> list[list[tuple[int, int]]]:
    hands: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    loads_s = [0.0] * count
    for block, which in sorted(every, key=lambda each: -blocks[each[0]].train_s[each[1]]):
        least = loads_s.index(min(loads_s))
        hands[least].append((block, which))
        loads_s[least] += blocks[block].train_s[which]
    return hands

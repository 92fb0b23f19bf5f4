"""What each worker does, of a plan: which replacements it trains, from whom it gets activations, to whom it gives them.

Workers are numbered from the first share's on. Those that have a share together train all of it, each on its part of
every batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse.blocks.schedule import Plan


@dataclass(frozen=True)
class Seat:
    """One worker's part.

    Attributes:
        first, last: blocks that it has to do with.
        own: (block, alternative) by number, of each that it trains.
        source: the worker that hands it what goes into its first block; None: it makes batches itself.
        begin: the block at which its own pass of the teacher begins.
        targets: workers that it hands something on to.
        hands_on: the block whose input that is.
        mates: workers that share each batch, this one among them; one alone where nobody does.
    """

    first: int
    last: int
    own: tuple[tuple[int, int], ...]
    source: int | None
    begin: int
    targets: tuple[int, ...]
    hands_on: int
    mates: tuple[int, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Seat:
        """What ``asdict`` made of one, after a journey as JSON."""
        pairs = tuple((int(block), int(which)) for block, which in values["own"])
        lists = {key: tuple(values[key]) for key in ("targets", "mates")}
        return cls(**{**values, "own": pairs, **lists})


def seats(plan: Plan) -> list[Seat]:
    """One for each worker that has something to do."""
    places: list[list[int]] = []
    count = 0
    for share in plan.shares:
        places.append(list(range(count, count + share.workers)))
        count += share.workers
    return list(_seats(plan, places))


def _seats(plan: Plan, places: Sequence[Sequence[int]]) -> Iterator[Seat]:
    for at, (share, workers) in enumerate(zip(plan.shares, places, strict=True)):
        before = places[at - 1] if plan.relayed and at else []
        after = places[at + 1] if plan.relayed and at + 1 < len(places) else []
        for number in range(share.workers):
            yield Seat(
                share.first,
                share.last,
                share.own,
                before[number % len(before)] if before else None,
                share.first if before else 0,
                tuple(each for place, each in enumerate(after) if place % len(workers) == number),
                share.last + 1 if share.next_first is None else share.next_first,
                tuple(workers),
            )

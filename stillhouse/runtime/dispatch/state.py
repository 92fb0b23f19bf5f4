"""All that the dispatcher knows, and what it counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

from stillhouse.runtime.dispatch.alarms import Alarms
from stillhouse.runtime.dispatch.backlog import Backlog
from stillhouse.runtime.dispatch.free import FreeWorkers
from stillhouse.runtime.dispatch.heaps import LazyHeap
from stillhouse.runtime.dispatch.leases import Consumer, OpenItem, Worker
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.work import Command


@dataclass(slots=True)
class Totals:
    """What happened since the beginning.

    Attributes:
        submitted, answered, given_up, taken, discarded: items; the last are those of closed consumers.
        leased: loans made; ``reissued`` of them went to an item whose worker was lost, hung or failed, ``hedged`` to
            one that is on loan as well; what came back undone and is lent again is neither.
        revoked, dropped, skipped, failed: loans called back; answers not needed; loans left out; loans that failed.
        joined, lost: workers; lost are those that went without having been let go.
        suspected, trusted: times that a worker was held for hung, and that it turned out alive.
    """

    submitted: int = 0
    answered: int = 0
    given_up: int = 0
    taken: int = 0
    discarded: int = 0
    leased: int = 0
    reissued: int = 0
    hedged: int = 0
    revoked: int = 0
    dropped: int = 0
    skipped: int = 0
    failed: int = 0
    joined: int = 0
    lost: int = 0
    suspected: int = 0
    trusted: int = 0


class State:
    """The dispatcher's tables.

    Attributes:
        closed: names of consumers that want nothing any more.
        usable: how many workers get work at all.
        clearing: how many workers are being emptied for a solo item.
        heads: oldest open items of their consumers that might be hedged, by when they should be done, the last first.
        out: commands of the event at hand.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = -math.inf
        self.workers: dict[str, Worker] = {}
        self.consumers: dict[str, Consumer] = {}
        self.closed: set[str] = set()
        self.usable = self.clearing = 0
        self.backlog = Backlog()
        self.free = FreeWorkers()
        self.alarms = Alarms()
        self.heads: LazyHeap[OpenItem] = LazyHeap(count())
        self.totals = Totals()
        self.out: list[Command] = []

"""The nouns of the runtime: items of work, what happens to them (events), and what is to be done (commands).

    consumer   asks, and takes answers in the order it asked: a student
    item       one piece of work of one consumer: "answer these views"
    worker     does items, one after the other, and may vanish at any time: a teacher
    lease      an item on loan to a worker until a deadline; numbered, so that a late answer is known as such

Times are seconds on any monotonic clock. Named tuples, since a dispatcher handles a hundred thousand of them a second.
"""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """One piece of work.

    Attributes:
        consumer: who asked.
        number: its place in the consumer's order: 0, 1, 2, ..., without gaps.
        size: units of work in it, e.g. views; a worker's pace is seconds a unit.
        nbytes: memory that it takes from being submitted to being taken; 1 or more.
    """

    consumer: str
    number: int
    size: int
    nbytes: int


class Lease(NamedTuple):
    """Which loan of which item: ``generation`` counts the loans of an item, from 1."""

    consumer: str
    number: int
    generation: int


class Attempt(NamedTuple):
    """How one loan of an item went wrong: a line of the story that a failed item tells."""

    worker: str
    generation: int
    at_s: float
    why: str


# Events: what happened.


class Submitted(NamedTuple):
    """A consumer asks; never beyond its window."""

    item: Item


class Joined(NamedTuple):
    """A worker is loaded and warm.

    Attributes:
        pace_s: seconds a unit as it measured itself; None: unknown.
        slots: the most items that it can hold at once.
        sure: it can't hang unseen, being the asking process itself: what it is lent has no deadline.
        packed: what it is lent takes long to pack: a loan's time begins when ``Sent`` says that it is on its way.
    """

    worker: str
    pace_s: float | None
    slots: int
    sure: bool = False
    packed: bool = False


class Sent(NamedTuple):
    """A loan to a worker that joined as ``packed`` is on its way; those of one worker in the order lent.

    Attributes:
        way_s: the way may take so long because of its size; its lease is longer by that.
    """

    worker: str
    lease: Lease
    way_s: float


class Draining(NamedTuple):
    """A worker wants to leave, or is to: what it holds it finishes, more it does not get."""

    worker: str
    why: str


class Gone(NamedTuple):
    """A worker is no more: died, disconnected, was stopped."""

    worker: str
    why: str


class Answered(NamedTuple):
    """A worker finished a loan.

    Attributes:
        spent_s: seconds that the worker itself took for it; None where it does not say. What else passed since it was
            sent was waiting in line, and the way.
    """

    worker: str
    lease: Lease
    spent_s: float | None = None


class Failed(NamedTuple):
    """A worker tried and could not, and is fit for other items."""

    worker: str
    lease: Lease
    why: str


class Skipped(NamedTuple):
    """A worker left out a loan that was revoked."""

    worker: str
    lease: Lease


class Taken(NamedTuple):
    """A consumer took its next item: the answer was delivered before."""

    consumer: str
    number: int


class Closed(NamedTuple):
    """A consumer wants nothing any more: its items are dropped."""

    consumer: str


class Tick(NamedTuple):
    """Time passed."""


Event = Submitted | Joined | Sent | Draining | Gone | Answered | Failed | Skipped | Taken | Closed | Tick


# Commands: what is to be done.


class Send(NamedTuple):
    """Give an item to a worker, to be answered until ``deadline_s`` (a time, not a duration)."""

    worker: str
    lease: Lease
    deadline_s: float


class Revoke(NamedTuple):
    """Tell a worker that a loan is not needed any more. It holds it until it skips it, or answers all the same."""

    worker: str
    lease: Lease


class Keep(NamedTuple):
    """The answer just reported is the item's: keep its payload until it is taken."""

    worker: str
    lease: Lease


class Drop(NamedTuple):
    """The answer just reported comes too late: forget its payload."""

    worker: str
    lease: Lease


class Deliver(NamedTuple):
    """The consumer's next item in order is answered; of each consumer 0, 1, 2, ..."""

    consumer: str
    number: int


class GiveUp(NamedTuple):
    """An item failed for good: the consumer gets its story in the item's place, in order like an answer."""

    consumer: str
    number: int
    story: tuple[Attempt, ...]


class Suspect(NamedTuple):
    """A worker let a deadline pass: it gets nothing until it answers."""

    worker: str
    why: str


class Trust(NamedTuple):
    """A suspect worker answered: it is used again."""

    worker: str


class Dismiss(NamedTuple):
    """Stop a worker; ``Gone`` will follow. ``kill``: at once, since it was silent too long; else it drained."""

    worker: str
    why: str
    kill: bool


Command = Send | Revoke | Keep | Drop | Deliver | GiveUp | Suspect | Trust | Dismiss

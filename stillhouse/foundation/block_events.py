"""Events of a teacher's blocks: what may replace them, what was chosen, who trains them; beside those of ``events``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class BlocksOffered:
    """The teacher can be cut: into so many ``blocks``, for which ``replacements`` are offered, all together.

    ``whole``: what the teacher costs, ``limits``: the most that the student may, by measure (``params``, ``macs``,
    ``bytes``, ``latency_ms``); ``whole`` has no latency where none is limited.
    """

    blocks: int
    replacements: int
    whole: Mapping[str, float]
    limits: Mapping[str, float]


@dataclass(frozen=True)
class ReplacementTrained:
    """Training of one of the replacements of a block: every few seconds, and at each epoch's end.

    ``error``: mean squared error since the last event, in units of the variance of what the block puts out.
    """

    phase: str
    block: str
    replacement: str
    step: int
    epoch: float
    error: float


@dataclass(frozen=True)
class BlocksChosen:
    """What stands for each block from now on: the names of ``blocks`` and of what is ``chosen`` for each (``keep``: the
    teacher's own); ``shares`` of the teacher's costs, by measure.
    """

    blocks: tuple[str, ...]
    chosen: tuple[str, ...]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class BlockWorkersAwaited:
    """So many processes are started that shall train blocks; each loads the teacher and times a few steps."""

    phase: str
    workers: int


class BlockWorker(NamedTuple):
    """One worker in a :class:`BlocksPlanned`; in the file a list in this order.

    Attributes:
        host, process_id: where it runs.
        first, last: names of the blocks that it has.
        replacements: names of block and replacement of each that it trains.
    """

    host: str
    process_id: int
    first: str
    last: str
    replacements: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BlocksPlanned:
    """Several workers train blocks from ``step`` on, as planned from a few steps that they all timed at once.

    ``relayed``: whether anything is handed on; else each runs the teacher from the first block on itself.
    ``step_s``: predicted seconds a batch; ``efficiency``: what one worker would need, over ``step_s`` times the number
    of workers asked for. ``link_bytes_s``: as measured between two of them; ``load_s``: making a batch. ``workers``:
    those with something to do, front to back.
    """

    phase: str
    step: int
    relayed: bool
    step_s: float
    efficiency: float
    link_bytes_s: float
    load_s: float
    workers: tuple[BlockWorker, ...]


class BlockWorkerMeasured(NamedTuple):
    """One worker in a :class:`BlocksMeasured`; in the file a list in this order.

    Attributes:
        step: steps that it has done.
        busy_share: of the time since the event before (0..1); else it waited for an activation, or to hand one on.
    """

    step: int
    busy_share: float


@dataclass(frozen=True)
class BlocksMeasured:
    """Workers that train blocks in numbers, in the order of the plan: every few seconds.

    ``seconds`` since the event before, or since they began.
    """

    phase: str
    seconds: float
    workers: tuple[BlockWorkerMeasured, ...]


@dataclass(frozen=True)
class PlanMeasured:
    """What a plan promised, and what came of it: seconds a batch."""

    phase: str
    planned_s: float
    measured_s: float


@dataclass(frozen=True)
class BlockWorkersLost:
    """One of ``workers`` that train blocks died at ``step``; ``text`` says which and why.

    The others are ended; a new plan is made for as many as are left, and what was not finished goes on from its newest
    checkpoints.
    """

    phase: str
    workers: int
    step: int
    text: str

"""A snapshot of the fleet and its consumers, for the scaling policy and for people. Costs a look at everything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from stillhouse.runtime.dispatch.leases import DISMISSED, LEASED, SUSPECT, Consumer, Worker
from stillhouse.runtime.dispatch.state import State, Totals

WorkerState = Literal["idle", "busy", "suspect", "draining", "dismissed"]


@dataclass(frozen=True)
class WorkerStatus:
    """One worker.

    Attributes:
        held: loans that it holds, of at most ``credits``; ``held_units`` in all.
        pace_s: seconds a unit, None: unknown.
        items, units: answered, needed or not.
        failures: loans that it reported as failed.
        busy_s: seconds in which it held work that was on its way; ``busy_share`` of those since ``joined_s``.
    """

    name: str
    state: WorkerState
    held: int
    held_units: int
    credits: int
    pace_s: float | None
    items: int
    units: int
    failures: int
    busy_s: float
    busy_share: float
    joined_s: float


@dataclass(frozen=True)
class ConsumerStatus:
    """One consumer.

    Attributes:
        open: items submitted and not taken, of ``open_bytes`` and ``open_units``.
        pending: those that wait for a worker for the first time.
        buffered: those answered and not taken, of ``buffered_units``.
        ready: those delivered: it may take so many at once.
        starved: it asked, and has nothing to take.
    """

    name: str
    open: int
    open_bytes: int
    open_units: int
    pending: int
    buffered: int
    buffered_units: int
    ready: int
    starved: bool


@dataclass(frozen=True)
class Status:
    """All of it at ``at_s``; ``totals`` since the beginning."""

    at_s: float
    workers: tuple[WorkerStatus, ...]
    consumers: tuple[ConsumerStatus, ...]
    totals: Totals


def status_of(state: State, now: float) -> Status:
    """The snapshot at ``now``, in seconds."""
    return Status(
        now,
        tuple(_worker(each, now) for each in state.workers.values()),
        tuple(_consumer(each) for each in state.consumers.values()),
        replace(state.totals),
    )


def _worker(worker: Worker, now: float) -> WorkerStatus:
    busy_s = worker.busy_s + worker.worked_s(now)
    return WorkerStatus(
        name=worker.name,
        state=_state(worker),
        held=len(worker.held),
        held_units=worker.units,
        credits=worker.credits,
        pace_s=worker.pace_s,
        items=worker.answered,
        units=worker.units_answered,
        failures=worker.failures,
        busy_s=busy_s,
        busy_share=busy_s / (now - worker.joined_s) if now > worker.joined_s else 0.0,
        joined_s=worker.joined_s,
    )


def _state(worker: Worker) -> WorkerState:
    if worker.state is DISMISSED:
        return "dismissed"
    if worker.state is SUSPECT:
        return "suspect"
    if worker.draining:
        return "draining"
    return "busy" if worker.held else "idle"


def _consumer(consumer: Consumer) -> ConsumerStatus:
    ready = consumer.delivered - consumer.taken
    return ConsumerStatus(
        name=consumer.name,
        open=len(consumer.items),
        open_bytes=consumer.open_bytes,
        open_units=sum(each.item.size for each in consumer.items.values()),
        pending=len(consumer.fresh),
        buffered=consumer.answered,
        buffered_units=sum(each.item.size for each in consumer.items.values() if each.state > LEASED),
        ready=ready,
        starved=bool(consumer.items) and not ready,
    )

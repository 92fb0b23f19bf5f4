"""Events of a search: what its trials are, how far they came, what was made of the best; beside those of ``events``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

OUTDONE: Final = "others were better"
"""Why a trial ended that nothing was wrong with."""


@dataclass(frozen=True)
class TrialBegun:
    """A point of the space is tried. ``point``: keys of the recipe; ``costs`` of its network, by measure; ``graphs``:
    their digest, where it has some.
    """

    trial: int
    point: Mapping[str, Any]
    costs: Mapping[str, float]
    graphs: str = ""


@dataclass(frozen=True)
class TrialReached:
    """A trial was trained up to a rung, counted from 0: ``epochs`` in all.

    ``members``: validation accuracy of each member that was trained so far (0..1). ``trained_epochs``: what that took,
    of all members; ``seconds`` of this process.
    """

    trial: int
    rung: int
    epochs: int
    members: tuple[float, ...]
    trained_epochs: int
    seconds: float


@dataclass(frozen=True)
class TrialEnded:
    """A trial goes on no more: ``why``; ``failed`` where it could not be trained.

    ``trained_epochs``: what was lost with it, of all members since its last rung, as far as this process knows.
    """

    trial: int
    why: str
    failed: bool
    trained_epochs: float = 0.0


@dataclass(frozen=True)
class TrialWorkerCame:
    """A process that trains trials came in."""

    worker: str
    host: str
    process_id: int


@dataclass(frozen=True)
class TrialWorkerLost:
    """One is gone, and started anew. ``trial``: what it was training, or a finalist of, which goes on elsewhere; None:
    nothing.
    """

    worker: str
    why: str
    trial: int | None
    final: bool = False


@dataclass(frozen=True)
class TrialLent:
    """A member of a trial is trained up to a rung (from 0) by a worker."""

    trial: int
    member: int
    rung: int
    worker: str


@dataclass(frozen=True)
class FinalistLent:
    """A new member of a trial's family is trained to the end by a worker."""

    trial: int
    member: int
    worker: str


@dataclass(frozen=True)
class FinalistTrained:
    """A new member of a trial's family was trained to the end, for so many epochs: its validation accuracy (0..1), and
    what it is.
    """

    trial: int
    member: int
    accuracy: float
    params: int
    arch: str
    options: Mapping[str, Any]
    epochs: int


@dataclass(frozen=True)
class StudentFound:
    """The search is over: the student is this member of this trial's family."""

    trial: int
    member: int


@dataclass(frozen=True)
class SearchMeasured:
    """What the trials' values depended on: the importance of each key, together 1; empty where it can't be told."""

    importances: Mapping[str, float]

"""Loans of one student, and reports about them."""

from __future__ import annotations

from collections.abc import Callable

from stillhouse.runtime.backend import Answer, Report
from stillhouse.runtime.work import Lease

from .stages import Stage

Begin = Callable[..., Stage]


def loan(number: int) -> Lease:
    return Lease("student", number, 1)


def of(kind: type[Report], reports: list[Report]) -> list[Report]:
    return [each for each in reports if isinstance(each, kind)]


def bare(reports: list[Report]) -> list[Report]:
    """Reports without the time that answers took, which varies."""
    return [each._replace(spent_s=None) if isinstance(each, Answer) else each for each in reports]

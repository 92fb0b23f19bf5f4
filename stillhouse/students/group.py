"""Several students that train one network together, as one of them sees it; one alone is a group like any other.

A step's batch is cut into ``accumulate`` micro-batches whatever their number; each student takes a consecutive share
of them. What the micro-batches found is brought together in their order, in the same arithmetic as one process would
do it, so that weights don't depend on how many students there are.
"""

from __future__ import annotations

from typing import Protocol

import torch


class Group(Protocol):
    """What one student needs of the others. All of them call the same methods in the same order.

    Attributes:
        size: how many students there are.
    """

    @property
    def size(self) -> int:
        """How many students there are."""

    def share(self, count: int) -> range:
        """Which of ``count`` micro-batches are this student's: consecutive, at least one of ``count`` >= size."""

    def gathered(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """[count, N]: the rows of all micro-batches in order, from the rows [k, N] of this student's share."""

    def summed(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """[N]: ((row 0 + row 1) + row 2) + ..., over the rows of all micro-batches, as :meth:`gathered` has them."""

    def largest(self, values: list[int]) -> list[int]:
        """Of each of some 64-bit numbers the largest that any student has."""


class Alone:
    """The only student there is."""

    size = 1

    def share(self, count: int) -> range:
        """All."""
        return range(count)

    def gathered(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """The rows."""
        return rows

    def summed(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """Their sum, in order."""
        return in_order(rows)

    def largest(self, values: list[int]) -> list[int]:
        """The numbers."""
        return values


def share_of(rank: int, size: int, count: int) -> range:
    """The consecutive share of one of ``size`` students; shares differ by one at most."""
    return range(rank * count // size, (rank + 1) * count // size)


def in_order(rows: torch.Tensor) -> torch.Tensor:
    """[N]: ((row 0 + row 1) + row 2) + ... of rows [k, N], the very additions that autograd accumulates with."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total

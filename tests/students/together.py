"""Students that train together in threads of one process: one computes at a time, and waits where all must meet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from stillhouse.students.group import in_order, share_of


class _Broken(Exception):
    """Another student failed."""


class Table:
    """Where ``size`` students meet, one after the other; each goes on when its turn comes again."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._turn = threading.Condition()
        self._laid: list[Any] = [None] * size
        self._now, self._failed = 0, False

    def begin(self, rank: int) -> None:
        self._wait(rank)

    def meet(self, rank: int, value: Any) -> list[Any]:
        """What all laid down; the turn goes round once more after the last has come."""
        self._laid[rank] = value
        self._pass_on(rank)
        self._wait(rank)
        found = list(self._laid)
        # everybody reads before anybody lays down again
        self._pass_on(rank)
        self._wait(rank)
        return found

    def end(self, rank: int, failed: bool) -> None:
        with self._turn:
            self._failed = self._failed or failed
        self._pass_on(rank)

    def _pass_on(self, rank: int) -> None:
        with self._turn:
            self._now = (rank + 1) % self.size
            self._turn.notify_all()

    def _wait(self, rank: int) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._now == rank or self._failed, timeout=60)
            if self._failed:
                raise _Broken


class Seated:
    """One of the students at a table: a group as ``students.group`` wants it."""

    def __init__(self, table: Table, rank: int) -> None:
        self.size, self._table, self._rank = table.size, table, rank

    def share(self, count: int) -> range:
        return share_of(self._rank, self.size, count)

    def gathered(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        found = torch.cat(self._table.meet(self._rank, rows.clone()))
        assert len(found) == count
        return found

    def summed(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        return in_order(self.gathered(rows, count))

    def largest(self, values: list[int]) -> list[int]:
        return [max(each) for each in zip(*self._table.meet(self._rank, list(values)), strict=True)]


def together(size: int, train: Callable[[Seated], Any]) -> list[Any]:
    """What ``train`` returns for each of ``size`` students; the first failure of any is raised."""
    table, results, errors = Table(size), [None] * size, list[BaseException]()

    def run(rank: int) -> None:
        failed = True
        try:
            table.begin(rank)
            results[rank] = train(Seated(table, rank))
            failed = False
        except _Broken:
            pass
        except BaseException as error:
            errors.append(error)
        finally:
            table.end(rank, failed)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if errors:
        raise errors[0]
    return results

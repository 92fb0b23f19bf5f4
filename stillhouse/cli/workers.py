"""The options that say how many processes do what: ``--workers``, ``--students`` and so on; numbers, or ranges."""

from __future__ import annotations

import re
from typing import Any

import click

Workers = tuple[int, int]


class _Workers(click.ParamType[Workers]):
    name = "N|MIN-MAX"

    def __init__(self, whom: str, none: str) -> None:
        self._whom, self._none = whom, none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Workers:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", str(value))
        if found is None:
            self.fail(f"{value!r} is no number of {self._whom}: write 3, or 1-4", param, ctx)
        least, most = int(found[1]), int(found[2] or found[1])
        if most < least:
            self.fail(f"{value}: the most comes last; did you mean {most}-{least}?", param, ctx)
        if least < 1 and (found[2] or not self._none):
            self.fail(f"{value}: one is the least{self._none}", param, ctx)
        return least, most


workers_option = click.option(
    "--workers",
    type=_Workers("workers", "; for no fleet at all write 0"),
    help="Teachers in processes of their own: fleet.workers of the recipe.",
)

students_option = click.option(
    "--students", type=_Workers("students", ""), help="Processes that train the student together: fleet.students."
)


block_workers_option = click.option(
    "--block-workers",
    type=click.IntRange(1),
    metavar="N",
    help="Processes that train a blockwise student's blocks: fleet.block_workers.",
)


trial_workers_option = click.option(
    "--trial-workers",
    type=click.IntRange(1),
    metavar="N",
    help="Processes that train a search's trials: fleet.trial_workers.",
)


def as_overrides(
    workers: Workers | None,
    students: Workers | None = None,
    block_workers: int | None = None,
    trial_workers: int | None = None,
) -> tuple[str, ...]:
    """The options as ``--set`` would say them."""
    several = tuple(
        f"fleet.{key}={given[0] if given[0] == given[1] else list(given)}"
        for key, given in (("workers", workers), ("students", students))
        if given is not None
    )
    single = {"block_workers": block_workers, "trial_workers": trial_workers}
    return (*several, *(f"fleet.{key}={given}" for key, given in single.items() if given is not None))

"""The option ``--workers``: a number, or a range."""

from __future__ import annotations

import re
from typing import Any

import click

Workers = tuple[int, int]


class _Workers(click.ParamType[Workers]):
    name = "N|MIN-MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Workers:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", str(value))
        if found is None:
            self.fail(f"{value!r} is no number of workers: write 3, or 1-4", param, ctx)
        return int(found[1]), int(found[2] or found[1])


workers_option = click.option(
    "--workers", type=_Workers(), help="Teachers in processes of their own: fleet.workers of the recipe."
)


def as_overrides(workers: Workers | None) -> tuple[str, ...]:
    """The option as ``--set`` would say it."""
    if workers is None:
        return ()
    least, most = workers
    return (f"fleet.workers={least if least == most else [least, most]}",)

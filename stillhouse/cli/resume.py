"""``stillhouse resume``: go on with a run."""

from __future__ import annotations

from pathlib import Path

import click

from stillhouse.cli.metrics import metrics_option
from stillhouse.cli.workers import (
    Workers,
    as_overrides,
    block_workers_option,
    students_option,
    trial_workers_option,
    workers_option,
)


@click.command(
    epilog="""\b
Examples:
  stillhouse resume runs/digits
  stillhouse resume runs/digits --workers 3    with another number of teachers than before
  stillhouse resume runs/digits --students 1   with one student where two had trained: the same bits
  stillhouse resume runs/search --trials 64    a search goes on until so many trials were begun in all
"""
)
@click.argument("folder", type=click.Path(path_type=Path))
@workers_option
@students_option
@block_workers_option
@trial_workers_option
@click.option("--trials", type=click.IntRange(1), metavar="N", help="Trials of a search in all: its search.trials.")
@metrics_option
def resume(
    folder: Path,
    workers: Workers | None,
    students: Workers | None,
    block_workers: int | None,
    trial_workers: int | None,
    trials: int | None,
    metrics_port: int | None,
) -> None:
    """Go on with the run in FOLDER, in the middle of an epoch if need be.

    However often a run is stopped or killed, it ends in the same student, to the last bit, as a run that never was
    (on the same kind of device, with the same versions). A recipe that was changed meanwhile is refused, but for its
    fleet, where it computes, and how many trials a search has.
    """
    from stillhouse.cli.metrics_server import served
    from stillhouse.cli.progress import shown
    from stillhouse.foundation.allocator import keep_freed_memory
    from stillhouse.runner.rundir import open_run

    run = open_run(folder)[0]
    if run.result.exists() and trials is None:
        click.echo(f"{folder} is finished: nothing is left to do, and this is its result")
    elif run.half_taught():
        click.echo(
            f"{folder} was begun by 'stillhouse teach', which has not finished: the run goes on to its end, what is "
            f"left to answer is asked on the way (for the teacher's part alone: stillhouse teach {folder})"
        )
    keep_freed_memory()

    with served(metrics_port) as watchers, shown(folder) as listener:
        from stillhouse.runner.run import resume as go_on

        fleet = as_overrides(workers, students, block_workers, trial_workers)
        go_on(folder, [listener, *watchers], fleet=fleet, trials=trials)

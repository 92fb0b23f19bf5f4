"""``stillhouse leave``: one teacher less for a run that is under way."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  stillhouse leave runs/job              which workers are there
  stillhouse leave runs/job local-2      this one finishes what it holds, and goes
"""
)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("worker", required=False)
def leave(run: Path, worker: str | None) -> None:
    """Have WORKER of RUN finish what it holds, and leave; without WORKER, list the workers.

    Nothing is lost, the student stays what it would have been. The run starts another one in its place where it keeps
    that many (--workers); of a range (1-4) only if its students need it.
    """
    from stillhouse.foundation.words import printable
    from stillhouse.runner.leaving import ask_to_leave, workers_of

    if worker is not None:
        follows = ask_to_leave(run, worker)
        click.echo(f"{worker} finishes what it holds, and leaves; {follows}")
        return
    found = workers_of(run)
    for each in found:
        where = "this machine" if each.here else each.host
        state = (", suspect: silent for too long" if each.suspect else "") + (", leaving" if each.leaving else "")
        click.echo(printable(f"{each.name:<12} process {each.process_id} on {where}, {each.device}{state}"))
    click.echo(f"{len(found)} {'worker' if len(found) == 1 else 'workers'} of {run}")

"""``stillhouse join``: one more teacher for a run that is under way."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  stillhouse join runs/job                          one more teacher on this machine
  stillhouse join runs/job --set fleet.device=cpu   on its processor, whatever the run uses
  ssh -R /tmp/door:DOOR gpu stillhouse join /tmp/door --set data.source.train=/data/train.parquet
                                                    on another machine; DOOR: 'address' in runs/job/fleet.json
"""
)
@click.argument("run", metavar="RUN|DOOR", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one value of the run's recipe.")
@click.option("--weights", type=click.Path(path_type=Path), help="A copy of the teacher's weights, on another machine.")
def join(run: Path, overrides: tuple[str, ...], weights: Path | None) -> None:
    """Answer for the teacher of RUN until it is over, or until Ctrl-C, which finishes what it holds.

    The run must have a fleet (run --workers). A teacher with other weights, another engine or other code is turned
    away. Data that are elsewhere here are named with --set; where there are none, the run sends pixels.
    """
    import sys

    from stillhouse.runner.joining import door_of

    door = door_of(run)
    from stillhouse.foundation.allocator import keep_freed_memory
    from stillhouse.runner.worker import work

    keep_freed_memory()
    sys.exit(work(door, None, overrides, weights))

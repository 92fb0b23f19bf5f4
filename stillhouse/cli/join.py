"""``stillhouse join``: one more teacher for a run that is under way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stillhouse.runner.joining import Cluster


@click.command(
    epilog="""\b
Examples:
  stillhouse join runs/job                          one more teacher on this machine
  stillhouse join runs/job --set fleet.device=cpu   on its processor, whatever the run uses
  at=$(ssh gpu mktemp -d); ssh -R $at/door:DOOR gpu stillhouse join $at/door --set data.source.train=/data/t.parquet
                                                    on another machine; DOOR: 'address' in runs/job/fleet.json
  stillhouse join 10.0.0.5:6379                     this machine for runs on the Ray cluster of that head
"""
)
@click.argument("run", metavar="RUN|ADDRESS", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one value of the run's recipe.")
@click.option("--weights", type=click.Path(path_type=Path), help="A copy of the teacher's weights, on another machine.")
def join(run: Path, overrides: tuple[str, ...], weights: Path | None) -> None:
    """Answer for the teacher of RUN until it is over, or until Ctrl-C, which finishes what it holds.

    The run must have a fleet (run --workers). A teacher with other weights, another engine or other code is turned
    away. Data that are elsewhere here are named with --set; where there are none, the run sends pixels.

    If the run's workers live on Ray, this machine becomes a node of the cluster, with place for one worker more (of
    ADDRESS: with all its processors and GPUs). It stays when the run is over, until Ctrl-C.
    """
    import sys

    from stillhouse.foundation.errors import UserError
    from stillhouse.runner.joining import Cluster, way_in

    found = way_in(run)
    if isinstance(found, Cluster):
        if overrides or weights is not None:
            raise UserError("--set and --weights are for a run on this machine's own door: on Ray the run tells all")
        _become_node(found)
        return
    from stillhouse.foundation.allocator import keep_freed_memory
    from stillhouse.runner.worker import work

    keep_freed_memory()
    sys.exit(work(found.address, None, overrides, weights))


def _become_node(cluster: Cluster) -> None:
    from functools import partial

    from stillhouse.foundation.errors import UserError
    from stillhouse.foundation.stamp import otherwise
    from stillhouse.runner.joining import check_ray_installed
    from stillhouse.runner.node import be_node
    from stillhouse.runtime.cluster import try_out

    check_ray_installed()
    if cluster.code and (why := otherwise(cluster.code)):
        raise UserError(f"the run would turn this machine's workers away: {why}")
    try_out(cluster.address)
    be_node(cluster.command(), cluster.joined(), partial(click.echo, err=True))

"""``stillhouse run``: a recipe from its start to its end."""

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
  stillhouse run recipes/digits.yaml
  stillhouse run recipes/digits.yaml --out runs/demo
  stillhouse run my.yaml --set student.train.epochs=50 --set seed=1
  stillhouse run my.yaml --workers 2       the teacher answers in two processes of its own
  stillhouse run my.yaml --workers 1-4     in as many as the student needs
  stillhouse run my.yaml --students 2      two processes train the student together
  stillhouse run my.yaml --block-workers 2 two processes train the blocks of a blockwise student
  stillhouse run my.yaml --trial-workers 2 two processes train the trials of a search
"""
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the run. Default: runs/NAME, numbered if taken."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one value of the recipe.")
@workers_option
@students_option
@block_workers_option
@trial_workers_option
@metrics_option
def run(
    recipe: Path,
    out: Path | None,
    overrides: tuple[str, ...],
    workers: Workers | None,
    students: Workers | None,
    block_workers: int | None,
    trial_workers: int | None,
    metrics_port: int | None,
) -> None:
    """Train, distil, compare, export: all that RECIPE says.

    Ctrl-C writes a checkpoint; 'stillhouse resume' goes on from there, or from wherever a crash left the run.
    """
    from stillhouse.recipe.load import load

    loaded = load(recipe, (*overrides, *as_overrides(workers, students, block_workers, trial_workers)))
    from stillhouse.cli.metrics_server import served
    from stillhouse.cli.progress import shown
    from stillhouse.foundation.allocator import keep_freed_memory
    from stillhouse.runner.rundir import RunDir, free_folder

    folder = out if out is not None else free_folder(loaded.name)
    keep_freed_memory()
    with served(metrics_port) as watchers, RunDir(folder).begun(loaded), shown(folder) as listener:
        from stillhouse.runner.run import resume

        resume(folder, [listener, *watchers])

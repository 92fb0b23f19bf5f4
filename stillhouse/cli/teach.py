"""``stillhouse teach``: only the teacher's part of a run."""

from __future__ import annotations

from pathlib import Path

import click

from stillhouse.cli.metrics import metrics_option
from stillhouse.cli.workers import Workers, as_overrides, workers_option


@click.command(
    epilog="""\b
Examples:
  stillhouse teach job.yaml                fill the label store; needs no student yet
  stillhouse teach job.yaml --workers 2    two processes answer; 'stillhouse join' adds more
  stillhouse teach runs/job                go on with that after Ctrl-C or a crash
  stillhouse resume runs/job               then train the students, which never wait for the teacher
"""
)
@click.argument("recipe", metavar="RECIPE|RUN", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the run. Default: runs/NAME, numbered if taken."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one value of the recipe.")
@workers_option
@metrics_option
def teach(
    recipe: Path, out: Path | None, overrides: tuple[str, ...], workers: Workers | None, metrics_port: int | None
) -> None:
    """Let the teacher of RECIPE answer everything its students will ask, into the label store.

    Trains the teacher first if the recipe says so. Other recipes with the same teacher, data, views and encoding read
    the same answers.
    """
    from stillhouse.foundation.errors import RunDirError

    if recipe.is_dir():
        if out is not None or overrides:
            raise RunDirError(f"{recipe} is a run: it goes on as it was begun, without --out and --set")
        _teach(recipe, as_overrides(workers), metrics_port)
        return
    from stillhouse.recipe.load import load
    from stillhouse.runner.rundir import RunDir, free_folder

    loaded = load(recipe, (*overrides, *as_overrides(workers)))
    folder = out if out is not None else free_folder(loaded.name)
    with RunDir(folder).begun(loaded):
        _teach(folder, (), metrics_port)


def _teach(folder: Path, fleet: tuple[str, ...], metrics_port: int | None) -> None:
    from stillhouse.cli.metrics_server import served
    from stillhouse.cli.progress import listening_to
    from stillhouse.foundation.allocator import keep_freed_memory
    from stillhouse.runner.rundir import open_run

    run, _ = open_run(folder)
    keep_freed_memory()
    with served(metrics_port) as watchers, listening_to(folder, f"stillhouse teach {folder}") as listener:
        from stillhouse.runner.run import teach as go_on

        store = go_on(folder, [listener, *watchers], fleet=fleet)
    click.echo(f"all answers of this run are in {store['folder']} ({store['bytes_on_disk'] / 1e6:,.1f} MB on disk)")
    if not run.result.exists():
        click.echo(f"train the students: stillhouse resume {folder}")

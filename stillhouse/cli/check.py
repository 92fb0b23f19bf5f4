"""``stillhouse check``: what a recipe would do, without torch."""

from __future__ import annotations

from pathlib import Path

import click

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
  stillhouse check recipes/digits.yaml
  stillhouse check my.yaml --set student.train.epochs=50
"""
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run, as for 'run'.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one value of the recipe.")
@workers_option
@students_option
@block_workers_option
@trial_workers_option
def check(
    recipe: Path,
    out: Path | None,
    overrides: tuple[str, ...],
    workers: Workers | None,
    students: Workers | None,
    block_workers: int | None,
    trial_workers: int | None,
) -> None:
    """Check RECIPE and say what it would do: samples, steps, where it writes, which code of yours it would run.

    Nothing is trained, nothing written, none of your code run; models are built only by 'run'.
    """
    from stillhouse.recipe.load import load
    from stillhouse.runner.plan import plan

    for key, value in plan(
        load(recipe, (*overrides, *as_overrides(workers, students, block_workers, trial_workers))), out
    ):
        click.echo(f"{key:<12} {value}")

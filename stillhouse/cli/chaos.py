"""``stillhouse chaos``: a recipe whose workers and run are killed, frozen and slowed all the time; is the student the
same?
"""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  stillhouse chaos recipes/digits.yaml --seed 3
  stillhouse chaos my.yaml --seed 4 --reference runs/my     compare with a run that is there
  stillhouse chaos my.yaml --seed 5 --minutes 5 --every 1   a disturbance a second, for five minutes
  stillhouse chaos my.yaml --seed 6 --set fleet.backend=ray actors and nodes of a Ray cluster
"""
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed, other disturbances."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of both runs. Default: runs/NAME-chaos-SEED.")
@click.option(
    "--reference", type=click.Path(path_type=Path), help="A finished run of RECIPE: saves the undisturbed one."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="After these, from the first disturbance, the run goes on to its end in peace.",
)
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=3.0, show_default=True, help="Seconds between disturbances."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one value of the recipe.")
def chaos(
    recipe: Path,
    seed: int,
    out: Path | None,
    reference: Path | None,
    minutes: float,
    every: float,
    overrides: tuple[str, ...],
) -> None:
    """Run RECIPE undisturbed, then with workers (2 to 3 where it says none) that are killed, frozen, slowed, added and
    drained, while the run itself is killed and resumed; compare the students' weights.

    Exit code 0: they are the same to the last bit; 1: they are not. What was done to whom is printed, and kept in
    OUT/run/chaos.jsonl. Only processes that this command started are touched. Linux only.

    With fleet.backend=ray the workers are actors of a cluster that is started on this machine for it, and ended after
    it; nodes join, freeze, drain and die there, too.
    """
    from stillhouse.foundation.words import printable
    from stillhouse.recipe.load import load
    from stillhouse.runner.chaos import Chaos, disturb

    loaded = load(recipe, overrides)
    folder = out if out is not None else Path("runs") / f"{loaded.name}-chaos-{seed}"
    found = disturb(loaded, folder, Chaos(seed, every, minutes), reference, lambda line: click.echo(printable(line)))
    click.echo("done:        " + ", ".join(f"{count} x {what}" for what, count in found.done.items()))
    if found.fleet:
        click.echo("the run saw: " + ", ".join(f"{count} {what}" for what, count in found.fleet.items()))
    click.echo(f"undisturbed  {found.undisturbed}\ndisturbed    {found.disturbed}")
    click.echo("identical" if found.identical else f"seed {seed}: the student's weights differ")
    sys.exit(0 if found.identical else 1)

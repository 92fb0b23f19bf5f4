"""``stillhouse family``: members of the family of random graphs that a recipe's student is of."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(
    epilog="""\b
Examples:
  stillhouse family show recipes/search-digits.yaml
  stillhouse family show recipes/search-digits.yaml --set student.model.options.top.nodes=6 --members 5
"""
)
def family() -> None:
    """Look at a family of networks before it is searched."""


@family.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one value of the recipe.")
@click.option("--members", type=click.IntRange(min=1, max=100), default=3, show_default=True)
def show(recipe: Path, overrides: tuple[str, ...], members: int) -> None:
    """Draw members of the family that the student of RECIPE is of: their graphs, and what is in them.

    A family of few nodes may have few members that differ.
    """
    from stillhouse.foundation.errors import RecipeError
    from stillhouse.models.graphs.member import member
    from stillhouse.recipe.load import load
    from stillhouse.recipe.random_graph import RandomGraphOptions

    model = load(recipe, overrides).student.model
    if model.arch != "random_graph":
        raise RecipeError(
            f"student.model.arch is {model.arch}: members of a random_graph are drawn here; those of a function differ "
            "by its option 'seed'"
        )
    options = RandomGraphOptions.model_validate({**model.options, "graphs": None})
    known: dict[str, int] = {}
    for seed in range(options.seed, options.seed + members):
        found = member(options.model_copy(update={"seed": seed}))
        if found.digest in known:
            click.echo(f"seed {seed}: the graphs of seed {known[found.digest]}")
            continue
        known[found.digest] = seed
        click.echo(f"seed {seed}: graphs {found.digest}, {found.operations} {options.operation} operations")
        for cell, stage in enumerate(found.stages):
            before = ", ".join(f"cell {each}" for each in found.top.before[cell]) or "the stem"
            inner = " + ".join(f"{graph.nodes} ({len(graph.edges)} edges)" for graph in found.bottom[cell])
            click.echo(f"  stage {stage + 1}, cell {cell}: from {before}; operations {inner}")
        click.echo(f"  head: from {', '.join(f'cell {each}' for each in found.top.last)}")

"""``stillhouse schema``: the recipe's JSON Schema, for editors."""

from __future__ import annotations

import json

import click


@click.command(
    epilog="""\b
Examples:
  stillhouse schema > stillhouse.schema.json
  then, as a recipe's first line, for editors with a YAML language server:
  # yaml-language-server: $schema=stillhouse.schema.json
"""
)
def schema() -> None:
    """Print the JSON Schema of recipes: completion and checks while you type."""
    from stillhouse.recipe.recipe import Recipe

    click.echo(json.dumps(Recipe.model_json_schema(), indent=2))

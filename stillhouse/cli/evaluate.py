"""``stillhouse evaluate``: the student of a run on one of its splits."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  stillhouse evaluate runs/digits
  stillhouse evaluate runs/digits --split validation
"""
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True)
def evaluate(folder: Path, split: str) -> None:
    """Accuracy of FOLDER's student, overall and class by class."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stillhouse.foundation.words import printable
    from stillhouse.runner.after import evaluate_run

    found = evaluate_run(folder, split)
    table = Table("class", "samples", "accuracy", title=f"{split}: {100 * found.accuracy:.2f} % of {found.samples:,}")
    for name, samples, accuracy in found.classes:
        table.add_row(Text(printable(name)), f"{samples:,}", f"{100 * accuracy:.1f} %" if samples else "-")
    Console().print(table)

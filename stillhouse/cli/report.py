"""``stillhouse report``: write the report of a run anew."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  stillhouse report runs/digits
"""
)
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write FOLDER/report.html anew; works on a run that is still going, too."""
    from stillhouse.report.html import write_report

    click.echo(str(write_report(folder)))

"""``stillhouse export``: the student of a run as ONNX, checked against the checkpoint."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  stillhouse export runs/digits
"""
)
@click.argument("folder", type=click.Path(path_type=Path))
def export(folder: Path) -> None:
    """Write FOLDER/student.onnx (dynamic batch) and run it against the checkpoint on the validation samples.

    The largest difference, size and latency are printed and put into FOLDER/result.json.
    """
    from stillhouse.runner.after import export_run

    found = export_run(folder)
    click.echo(
        f"{folder / found['file']}: {found['bytes']:,} bytes, {found['latency_ms']:.3f} ms a sample; "
        f"against the checkpoint on {found['samples']:,} samples: "
        f"largest difference {found['largest_difference']:.2g}, "
        f"same class {100 * found['agreement']:.1f} %"
    )

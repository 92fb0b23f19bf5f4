"""``stillhouse``: the verbs, and what becomes of errors.

Exit codes: docs/reference.md. What a person got wrong is told in words, without a traceback.
"""

from __future__ import annotations

import sys

import click

from stillhouse.cli import (
    blocks,
    chaos,
    check,
    evaluate,
    export,
    family,
    join,
    leave,
    plan,
    report,
    resume,
    run,
    schema,
    store,
    study,
    teach,
)
from stillhouse.foundation.errors import Interrupted, StillhouseError
from stillhouse.foundation.words import printable


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="stillhouse")
def cli() -> None:
    """Distil a large trained network into a small, fast one.

    \b
    stillhouse check recipes/digits.yaml     what would this run do?
    stillhouse run recipes/digits.yaml       do it
    stillhouse resume runs/digits            go on after a crash, to the same bits
    """


for verb in (
    run.run,
    resume.resume,
    teach.teach,
    join.join,
    chaos.chaos,
    leave.leave,
    check.check,
    plan.plan,
    blocks.blocks,
    family.family,
    study.study,
    schema.schema,
    evaluate.evaluate,
    export.export,
    report.report,
    store.store,
):
    cli.add_command(verb)


def main() -> None:
    """Entry point."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt) as stop:
        if isinstance(stop.__cause__, EOFError):  # click takes every end of file for a closed keyboard
            raise stop.__cause__ from None
        click.echo("stopped", err=True)
        sys.exit(130)
    except Interrupted as error:
        click.echo(printable(str(error)), err=True)
        sys.exit(error.exit_code)
    except StillhouseError as error:
        click.echo(printable(f"error: {error}"), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)

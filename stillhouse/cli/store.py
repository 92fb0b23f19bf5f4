"""``stillhouse store``: look at the folder of label stores, check it, throw stores away, hand rows on."""

from __future__ import annotations

import contextlib
import os
import re
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillhouse.foundation.sizes import size_bytes

if TYPE_CHECKING:
    from stillhouse.store.manifest import Manifest
    from stillhouse.store.shelf import Shelved

_NAME = re.compile("[0-9a-f]{1,16}")


def _labels() -> Path:
    return Path(os.environ.get("STILLHOUSE_LABELS") or "labels")


_PATH = click.argument("path", type=click.Path(path_type=Path), default=_labels)


def _size(text: str) -> int:
    try:
        return size_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group()
def store() -> None:
    """Label stores: teachers' answers that outlive a run, in the folder that recipes name in store.path."""


@store.command()
@_PATH
def ls(path: Path) -> None:
    """What stands in PATH (STILLHOUSE_LABELS, else labels, if none is given): whose answers, how many, how large.

    A store knows teacher, data and views by what they are, not by name: several runs may share it. The share of rows
    counts all samples of the source; a run asks only about its training split.
    """
    from stillhouse.foundation.errors import StillhouseError
    from stillhouse.store.examine import filled
    from stillhouse.store.shelf import stores

    found = stores(path)
    for each in found:
        days = (time.time() - each.last_used) / 86400
        said = [_told(each.bytes_on_disk), f"{each.views} views"]
        about = each.problem
        if each.manifest is not None:
            said.insert(0, _in_short(each.manifest))
            about = _whose(each.manifest.identity.parts)
            with contextlib.suppress(StillhouseError):  # removed meanwhile
                said.append(f"{100 * filled(each.folder):.0f} % of {each.views * each.manifest.samples:,} rows")
        said.append("in use" if each.in_use else f"last used {days:.0f} days ago" if days >= 1 else "last used today")
        click.echo(f"{each.folder.name}  {', '.join(said)}\n{textwrap.indent(about, '  ')}")
    click.echo(f"{len(found)} in {path}, {_told(sum(each.bytes_on_disk for each in found))}")


@store.command()
@_PATH
def verify(path: Path) -> None:
    """Check every row of the stores in PATH, or of the one store PATH. Exit code 1 if anything is damaged.

    Damage costs only time: a damaged row is never read, it is asked again.
    """
    from stillhouse.foundation.errors import CorruptError, StillhouseError
    from stillhouse.store.examine import verify as counted
    from stillhouse.store.shelf import stores

    damaged, problems = 0, []
    for each in stores(path):
        try:
            with _bar(each.folder.name) as tell:
                views = counted(each.folder, tell)
        except StillhouseError as error:
            problems.append(str(error))
            continue
        totals = [sum(view.valid for view in views), sum(view.absent for view in views)]
        bad = sum(view.damaged for view in views)
        click.echo(f"{each.folder}: {totals[0]:,} rows valid, {totals[1]:,} absent, {bad:,} damaged")
        for view in (view for view in views if view.damaged):
            first = ", ".join(map(str, view.first_damaged)) + (" ..." if view.damaged > len(view.first_damaged) else "")
            click.echo(f"  view {view.view}: {view.damaged:,} damaged, samples {first}")
        damaged += bad
    if damaged:
        problems.append("damaged rows are not read: the next run asks for them again")
    if problems:
        raise CorruptError("\n".join(problems))


@store.command(
    epilog="""\b
Examples:
  stillhouse store prune --older-than-days 30
  stillhouse store prune labels --bytes-max 20GB --dry-run
  stillhouse store prune 3f2a --yes
"""
)
@_PATH
@click.argument("names", nargs=-1)
@click.option("--older-than-days", type=click.FloatRange(min=0), help="Those not used for so many days.")
@click.option(
    "--bytes-max",
    type=_size,
    metavar="SIZE",
    help="The longest unused, until the rest takes no more: 500MB, 20GiB.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def prune(
    path: Path, names: tuple[str, ...], older_than_days: float | None, bytes_max: int | None, dry_run: bool, yes: bool
) -> None:
    """Throw away whole stores in PATH: those with these NAMES (or their beginnings), old ones, or as many as must go.

    Without PATH: STILLHOUSE_LABELS, else labels; a first word that is no folder here but may name a store does.
    Stores that a run has open stay. What is thrown away is asked again by the next run that wants it.
    """
    from stillhouse.store.shelf import clear_leftovers, remove, stores, to_prune

    if _NAME.fullmatch(str(path)) and not path.exists():
        path, names = _labels(), (str(path), *names)
    if not names and older_than_days is None and bytes_max is None:
        raise click.UsageError("say what shall go: names, --older-than-days or --bytes-max")
    found = stores(path)
    if not dry_run:
        clear_leftovers(path)
    chosen = to_prune(found, time.time(), names, older_than_days, bytes_max)
    for each in chosen:
        click.echo(f"{each.folder}  {_told(each.bytes_on_disk)}{'  in use, stays' if each.in_use else ''}")
    going = [each for each in chosen if not each.in_use]
    if dry_run or not going:
        click.echo(f"{_sum(going)} would go" if going else "nothing to throw away")
        return
    if not yes:
        click.confirm(f"throw away {_sum(going)}?", abort=True)
    gone = []
    for each in going:
        if remove(each.folder):
            gone.append(each)
        else:
            click.echo(f"{each.folder} is in use by now: it stays")
    click.echo(f"threw away {_sum(gone)}")


@store.command()
@click.argument("folder", metavar="STORE", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def export(folder: Path, file: Path) -> None:
    """Write all valid rows of the store STORE (labels/3f2a...) to the Parquet file FILE.

    \b
    sample_id, view  which picture; view -1: the sample as it is
    logits           all classes' logits; or, of {kind: top, k: ...}:
    top_index        [k] the classes of the k largest, the largest first
    top_logit        the largest logit
    top_gap          [k - 1] how far the next ones are below it
    rest_gap         how far the log-mean-exp of all others is below it, which
                     stands for each of them; missing where k is all classes
    feature:NAME     an activation, flat, row-major
    scale:NAME       where it is int8: it is feature / 127 * scale, channel by channel

    Of top columns, every logit is top_logit - rest_gap, but for those in top_index: top_logit, then
    top_logit - top_gap. The manifest is in the file's metadata, under 'stillhouse'.
    """
    from stillhouse.store.examine import export as written

    with _bar(file.name) as tell:
        count = written(folder, file, tell)
    click.echo(f"{file}: {count:,} rows")


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar in a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from stillhouse.foundation.words import printable

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(escape(printable(name)), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _in_short(manifest: Manifest) -> str:
    """Teacher, form of the answers, and samples in a few words."""
    parts = manifest.identity.parts
    encoding, shape = parts["question"].get("encoding", {}), parts["views"].get("shape")
    widths = {name: width for name, _, width in manifest.fields}
    words = [str(parts["teacher"].get("arch", "a teacher"))]
    if "logits" in widths:
        words.append(f"{widths['logits'][0]} classes {encoding.get('logits', '')}".strip())
    if "top_index" in widths:
        words.append(f"the {widths['top_index'][0]} largest logits")
    if activations := [name.partition(":")[2] for name in widths if name.startswith("feature:")]:
        words.append(f"activations {', '.join(activations)} {encoding.get('features', '')}".strip())
    of_shape = f" of {'x'.join(map(str, shape))}" if shape else ""
    return f"{', '.join(words)}; {manifest.samples:,} samples{of_shape}; made {manifest.created[:10]}"


def _whose(identity: Mapping[str, Any]) -> str:
    """Teacher, question, views and engine in a few lines; digests by their beginnings."""
    from stillhouse.store.manifest import flat

    def told(value: object) -> str:
        text = str(value)
        return text[:8] if re.fullmatch(r"[0-9a-f]{32,}", text) else text

    lines = []
    for part, values in identity.items():
        said = " ".join(
            f"{key}={told(value)}" for key, value in flat(values).items() if value not in (None, [], {}, "")
        )
        lines.append(f"{part}: {said}")
    return "\n".join(lines)


def _sum(shelved: list[Shelved]) -> str:
    size = _told(sum(each.bytes_on_disk for each in shelved))
    return f"{len(shelved)} {'store' if len(shelved) == 1 else 'stores'}, {size}"


def _told(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

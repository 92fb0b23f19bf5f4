"""``stillhouse study``: the searches there are, what one has tried, what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click


@click.group(
    epilog="""\b
Examples:
  stillhouse study ls
  stillhouse study show runs/search-digits
  stillhouse study best runs/search-digits
"""
)
def study() -> None:
    """Look at searches, finished or under way."""


@study.command("ls")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
def list_(folder: Path) -> None:
    """List the searches in FOLDER (default: runs)."""
    found = sorted(each.parent for each in folder.glob("*/search.db"))
    if not found:
        click.echo(f"no searches in {folder}")
        return
    rows = [("run", "trials", "epochs trained", "best", "state")]
    for each in found:
        told = _sought(each)
        trained = [trial for trial in told["trials"] if trial["rungs"]]
        state = "finished" if (each / "result.json").exists() else "unfinished"
        rows.append((str(each), str(len(trained)), f"{told['trained_epochs']:,.0f}", _best(told), state))
    _print(rows)


@study.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=30, show_default=True, help="So many at most.")
def show(run: Path, top: int) -> None:
    """Show the trials of RUN: those that were trained longest first, of these the best."""
    from stillhouse.foundation.words import printable
    from stillhouse.report.search.front import MEASURES
    from stillhouse.report.search.read import short

    told = _sought(run)
    trials = sorted(told["trials"], key=_rank)
    keys = list(dict.fromkeys(key for trial in trials for key in trial["point"]))
    found = {
        key: list({repr(trial["point"].get(key)): trial["point"].get(key, "") for trial in trials}.values())
        for key in keys
    }
    same = [key for key in keys if len(found[key]) == 1 and len(trials) > 1]
    measures = ["params", *(name for name in _limited(run) if name != "params")]
    names = [MEASURES[name][0] for name in measures]
    rows = [("trial", "epochs", "correct", *names, *(short(key) for key in keys if key not in same), "end")]
    for each in trials[:top]:
        epochs, value = _last(each)
        costs = [_cost(each, name) for name in measures]
        point = [_shown(each["point"].get(key, "")) for key in keys if key not in same]
        correct = f"{100 * value:.1f} %" if epochs else ""
        rows.append((str(each["trial"]), str(epochs or ""), correct, *costs, *point, each["ended"]))
    ended = any(row[-1] for row in rows[1:])
    _print(rows if ended else [row[:-1] for row in rows])
    if len(trials) > len(rows) - 1:
        click.echo(f"and {len(trials) - len(rows) + 1} more; --top {len(trials)} shows them")
    for key in same:
        click.echo(printable(f"all: {key}: {_shown(found[key][0])}"))


@study.command()
@click.argument("run", type=click.Path(path_type=Path))
def best(run: Path) -> None:
    """Say what RUN found, and where its recipe is."""
    from stillhouse.report.search.front import MEASURES

    told = _sought(run)
    trained = sorted((each for each in told["trials"] if each["rungs"]), key=_rank)
    if not trained:
        click.echo("no trial has come to a rung yet")
        return
    chosen = told["student"]["trial"] if told["student"] else trained[0]["trial"]
    trial = next(each for each in told["trials"] if each["trial"] == chosen)
    epochs, value = _last(trial)
    plural = "s" * (epochs != 1)
    click.echo(f"trial {chosen}: {100 * value:.1f} % of the validation samples after {epochs} epoch{plural}")
    for key, found in trial["point"].items():
        click.echo(f"  {key}: {_shown(found)}")
    for each in told["finalists"]:
        mark = "  <- the student" if told["student"] == {name: each[name] for name in ("trial", "member")} else ""
        accuracy = f"{100 * each['accuracy']:.1f} %"
        click.echo(f"finalist {each['trial']}-{each['member']}: {accuracy}, {each['params']:,} parameters{mark}")
    for name, numbers in told["front"].items():
        on = (next(each for each in told["trials"] if each["trial"] == number) for number in numbers)
        points = (f"trial {each['trial']} {_cost(each, name)} {100 * _last(each)[1]:.1f} %" for each in on)
        click.echo(f"front by {MEASURES[name][0]}: {', '.join(points)}")
    if not (run / "best.yaml").exists():
        click.echo("the search is not over: its finalists are still to be trained")
    elif "arch: live" in (run / "best.yaml").read_text():
        how = f"stillhouse.run('{run / 'best.yaml'}', teacher=..., data=...)"
        click.echo(f"{how} makes the student again: its teacher and data were handed over from Python")
    else:
        click.echo(f"stillhouse run {run / 'best.yaml'} makes the student again")


def _sought(run: Path) -> dict[str, Any]:
    from stillhouse.foundation.errors import RunDirError
    from stillhouse.foundation.history import read_events
    from stillhouse.report.search.read import sought

    if not (run / "search.db").exists():
        raise RunDirError(f"{run} is no run that searches: it has no search.db")
    empty = {"trials": [], "front": {}, "trained_epochs": 0, "finalists": [], "student": None}
    return sought(read_events(run / "events.jsonl")) or empty


def _last(trial: Mapping[str, Any]) -> tuple[int, float]:
    """Epochs and value at the highest rung that a trial has reached."""
    rungs = trial["rungs"]
    return (max(map(int, rungs)), rungs[max(rungs, key=int)]) if rungs else (0, 0.0)


def _rank(trial: Mapping[str, Any]) -> tuple[float, ...]:
    epochs, value = _last(trial)
    return -epochs, -value, trial["trial"]


def _best(told: Mapping[str, Any]) -> str:
    trained = sorted((each for each in told["trials"] if each["rungs"]), key=_rank)
    if not trained:
        return ""
    epochs, value = _last(trained[0])
    return f"{100 * value:.1f} % after {epochs} (trial {trained[0]['trial']})"


def _limited(run: Path) -> list[str]:
    """What the student of a search may cost, by measure."""
    from stillhouse.foundation.errors import RecipeError
    from stillhouse.recipe.load import load

    try:
        section = load(run / "recipe.yaml").search
    except RecipeError:  # a file that it names is gone
        return []
    if section is None:
        return []
    room = {"peak_bytes"} if section.target is not None and section.target.memory_bytes is not None else set()
    return [name for name, most in section.budget.model_dump().items() if most is not None or name in room]


def _cost(trial: Mapping[str, Any], name: str) -> str:
    from stillhouse.report.search.front import MEASURES

    found = trial["costs"].get(name)
    if found is None:
        return ""
    return MEASURES[name][1](found)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _print(rows: Sequence[tuple[str, ...]]) -> None:
    from stillhouse.foundation.words import printable

    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        told = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(printable(told.rstrip()))

"""What a person sees while a run works: bars in a terminal, plain lines elsewhere, the result at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from stillhouse.cli.fleet_table import FleetTable
from stillhouse.cli.search_lines import SearchLines
from stillhouse.cli.search_table import SearchTable
from stillhouse.foundation import block_events as b
from stillhouse.foundation import events as e
from stillhouse.foundation.errors import Interrupted
from stillhouse.foundation.files import read_json
from stillhouse.foundation.history import read_events
from stillhouse.foundation.words import printable
from stillhouse.report.numbers import three_digits

_PLAIN_EVERY_S = 10.0
_STAGES = {"assembled": "the chosen blocks put together", "calibrated": "blocks used to each other"}
_UNITS = {"params": "parameters", "macs": "multiply-adds", "bytes": "bytes", "latency_ms": "ms a sample"}


@contextlib.contextmanager
def shown(folder: Path) -> Iterator[Callable[[e.Event], None]]:
    """Show the events of a run; when it has ended well, print its result and where to look."""
    with listening_to(folder, f"stillhouse resume {folder}") as listener:
        yield listener
    from stillhouse.report.compare import print_result

    print_result(read_json(folder / "result.json"), folder, PatientConsole())


@contextlib.contextmanager
def listening_to(folder: Path, go_on: str) -> Iterator[Callable[[e.Event], None]]:
    """Show the events of a run; where it is interrupted, say the command that goes on."""
    console = PatientConsole()
    say(console, f"run directory: {folder}")
    try:
        if console.is_terminal:
            bars = Bars(console, folder)
            with bars.live():
                yield bars.hear
        else:
            yield Lines(console, folder).hear
    except Interrupted as stop:
        raise Interrupted(f"{stop}; go on with: {go_on}", stop.exit_code - 128) from None


class PatientConsole(Console):
    """A console that falls silent, and lets the run go on, once nobody reads what it writes."""

    def on_broken_pipe(self) -> None:
        """Where rich would end the process."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(console: Console, text: str, style: str = "") -> None:
    """Print a line as it stands: brackets are no markup, colons no pictures, and nothing in it moves the cursor."""
    console.print(Text(printable(text), style=style), soft_wrap=True)


class Bars:
    """One bar a phase, with throughput, loss, accuracy and the time left; below them search, students, fleet."""

    def __init__(self, console: Console, folder: Path) -> None:
        before = read_events(folder / "events.jsonl")
        self._search = SearchLines(before)
        self.progress = Progress(
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self.fleet = FleetTable()
        self.trials = SearchTable(before)
        self._tasks: dict[str, TaskID] = {}
        self._notes: dict[str, dict[str, str]] = {}

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Draw all again and again while the block runs; the bars stay, the tables go."""
        with Live(console=self.progress.console, get_renderable=lambda: Group(self.progress, self.trials, self.fleet)):
            try:
                yield
            finally:
                self.fleet.hide()
                self.trials.hide()

    def hear(self, event: e.Event) -> None:
        """Take one event."""
        self.fleet.hear(event)
        self.trials.hear(event)
        if isinstance(event, e.DataRead):
            self._update(f"read {event.source}", event.done, event.samples)
        elif isinstance(event, e.PhaseStarted):
            if event.steps:
                self._update(event.phase, event.step, event.steps)
        elif isinstance(event, e.Progress):
            self._note(event.phase, speed=_speed(event), loss=_loss(event))
            self._update(event.phase, event.step)
        elif isinstance(event, e.Evaluated):
            self._note(event.phase, accuracy=f"validation {100 * event.accuracy:.1f} %")
            if event.phase in self._tasks:
                self._update(event.phase, event.step)
            else:
                say(self.progress.console, _as_it_stands(event))
        elif (line := self._search.line(event)) is not None:
            say(self.progress.console, line)
        else:
            _say_if_remarkable(event, self.progress.console)

    def _note(self, phase: str, **parts: str) -> None:
        self._notes.setdefault(phase, {}).update(parts)

    def _update(self, name: str, done: int, total: int | None = None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(printable(name)[:16], total=total, completed=done, note="")
        parts = self._notes.get(name, {})
        note = ", ".join(parts[part] for part in ("speed", "loss", "accuracy") if parts.get(part))
        self.progress.update(self._tasks[name], completed=done, note=note)


@dataclass
class _Pace:
    """How a training goes on. ``warm``: when its first step's time, which holds compilation, was over."""

    steps: int = 0
    speed: str = ""
    warm: tuple[int, float] | None = None
    said: float = field(default_factory=time.monotonic)

    def left_s(self, step: int) -> float:
        """Seconds to its last step, as it went since it was warm."""
        assert self.warm is not None
        first, since = self.warm
        return max(self.steps - step, 0) * (time.monotonic() - since) / max(step - first, 1)


class Lines:
    """A line at each start, each epoch's end that is worth one, and each end."""

    def __init__(self, console: Console, folder: Path) -> None:
        self._console = console
        self._paces = dict[str, _Pace]()
        self._search = SearchLines(read_events(folder / "events.jsonl"))

    def hear(self, event: e.Event) -> None:
        """Take one event."""
        pace = self._paces.get(str(getattr(event, "phase", "")), _Pace())
        if isinstance(event, e.PhaseStarted):
            steps = event.steps if event.step < event.steps else 0
            self._paces[event.phase] = _Pace(steps)
            if steps:
                self._say(f"{event.phase}: from step {event.step:,} to {event.steps:,}")
        elif isinstance(event, e.Progress):
            pace.speed = _speed(event)
            if pace.warm is None:
                pace.warm = (event.step, time.monotonic())
            elif time.monotonic() - pace.said >= _PLAIN_EVERY_S:
                pace.said = time.monotonic()
                at = f"step {event.step:,}/{max(pace.steps, event.step):,}"
                left = f"{pace.left_s(event.step):,.0f} s left"
                self._say(f"{event.phase}: {', '.join(filter(None, (at, _loss(event), pace.speed, left)))}")
        elif isinstance(event, e.Evaluated) and not pace.steps:
            self._say(_as_it_stands(event))
        elif isinstance(event, e.Evaluated) and event.step == pace.steps:
            self._say(f"{event.phase}: validation accuracy {100 * event.accuracy:.2f} %")
        elif isinstance(event, e.PhaseFinished):
            if pace.steps:
                self._say(f"{event.phase}: {', '.join(filter(None, (f'done in {event.seconds:.1f} s', pace.speed)))}")
        elif (line := self._search.line(event)) is not None:
            self._say(line)
        else:
            _say_if_remarkable(event, self._console)

    def _say(self, text: str) -> None:
        say(self._console, text)


def _as_it_stands(event: e.Evaluated) -> str:
    """What there is to say of a network that no step was taken with since the phase before."""
    how = _STAGES.get(event.phase, "as it stands")
    return f"{event.phase}: {how}, validation accuracy {100 * event.accuracy:.2f} %"


def _speed(event: e.Progress) -> str:
    busy = sum(value for name, value in event.seconds.items() if name in ("data", "teacher", "store", "step"))
    return f"{event.samples / busy:,.0f} samples/s" if busy else ""


def _loss(event: e.Progress) -> str:
    if "total" not in event.losses:
        return ""
    name = "mean error" if event.phase.partition("-")[0] == "blocks" else "loss"
    return f"{name} {event.losses['total']:.3f}"


def blocks_line(event: b.BlocksOffered) -> str:
    """Into what the teacher is cut, and what its student may cost, as a line."""
    most = []
    for measure, limit in event.limits.items():
        whole = event.whole[measure]
        told = three_digits if measure == "latency_ms" else "{:,.0f}".format
        met = " (met already)" if limit >= whole else ""
        most.append(f"{told(limit)} of {told(whole)} {_UNITS[measure]}{met}")
    offered = f"{event.blocks} of them, {event.replacements} replacements"
    return f"blocks: {offered}; the student may have at most {' and '.join(most)}"


def chosen_line(event: b.BlocksChosen) -> str:
    """What stands for which block, and what that costs, as a line."""
    pairs = zip(event.blocks, event.chosen, strict=True)
    others = [f"{block} {name}" for block, name in pairs if name != "keep"]
    left = len(event.blocks) - len(others)
    units = {**_UNITS, "latency_ms": "time"}
    shares = ", ".join(f"{100 * share:,.0f} % of its {units[name]}" for name, share in event.shares.items())
    kept = f"; {left} {'stay' if left > 1 else 'stays'} the teacher's" if left else ""
    return f"chosen: {', '.join(others) or 'nothing'}{kept}; {shares}"


def _say_if_remarkable(event: e.Event, console: Console) -> None:
    if isinstance(event, e.EngineTried):
        if event.samples_per_s is None and event.refused.startswith("not tried") and not event.chosen:
            return  # the report tells them, too
        say(console, engine_line(event), "bold" if event.chosen else "dim")
    elif isinstance(event, e.StoreOpened):
        views = f"{event.views} view{'s' if event.views > 1 else ''} of each sample"
        size = f"{views}, {event.bytes_planned / 1e6:,.2g} MB when all are answered"
        share = f"holds {event.answered:,} of the {event.wanted:,} answers that this run wants"
        say(console, f"label store: {event.folder} ({size}): {share}")
        if event.note:
            say(console, f"  {event.note}", "dim")
    elif isinstance(event, b.BlocksChosen):
        console.print(chosen_line(event), markup=False, highlight=False)
    elif isinstance(event, b.BlocksOffered):
        say(console, blocks_line(event))
    elif isinstance(event, e.SourceMeasured):
        read, asked = (f"{1e6 * each:,.1f} us a view" for each in (event.reading_s, event.asking_s))
        say(console, f"label store: reading {read}, asking {asked}: {event.source}")
    elif isinstance(event, e.FleetChanged):
        say(console, fleet_line(event))
    elif isinstance(event, e.GroupChanged):
        say(console, group_line(event))
    elif isinstance(event, b.BlockWorkersAwaited):
        several = f"{event.workers} workers start" if event.workers > 1 else "a worker starts"
        say(console, f"{event.phase}: {several}; each loads the teacher and times a few steps")
    elif isinstance(event, b.BlocksPlanned):
        say(console, plan_line(event))
    elif isinstance(event, b.PlanMeasured):
        told = f"{1e3 * event.planned_s:,.3g} ms were planned, {1e3 * event.measured_s:,.3g} ms measured"
        say(console, f"{event.phase}: a step of all, {told}")
    elif isinstance(event, b.BlockWorkersLost):
        again = "all begin again from the newest checkpoints"
        say(console, f"{event.phase}, step {event.step:,}: {event.text}; {again}")
    elif isinstance(event, e.Warned):
        say(console, f"warning: {event.message}", "yellow")
    elif isinstance(event, e.CheckpointRefused):
        say(console, f"{event.phase}: {event.reason}; using the one before", "yellow")


def fleet_line(event: e.FleetChanged) -> str:
    """What happened to the fleet, as a line."""
    facts = event.facts
    if event.kind == "joined":
        where = f"process {facts.get('pid')} on {facts.get('host')}, {facts.get('device')}"
        where += f", {facts['engine']}" if facts.get("engine") else ""
        pace = f", {1 / facts['pace_s']:,.0f} views/s" if facts.get("pace_s") else ""
        return f"teacher {event.worker} joined: {where}{pace}, data {facts.get('reads')}"
    words = {
        "refused": "was turned away",
        "leaving": "leaves",
        "left": "is gone",
        "suspect": "is silent",
        "trusted": "is back",
        "scaled": "is let go",
    }
    told = f": {event.text}" if event.text else ""
    return f"teacher {event.worker} {words[event.kind]}{told}" if event.worker else f"teachers{told}"


def group_line(event: e.GroupChanged) -> str:
    """What happened to the students of a training, as a line."""
    if event.kind == "started":
        processes = ", ".join(f"{process} on {host}" for host, process in event.members)
        where = f" (processes {processes})" if processes else ""
        return f"{event.phase}: {event.students} students train together, from step {event.step:,}{where}"
    return f"{event.phase}, step {event.step:,}: {event.text}; all begin again from the newest checkpoint"


def plan_line(event: b.BlocksPlanned) -> str:
    """Who trains which blocks, as a line."""
    parts = []
    for each in event.workers:
        blocks = each.first if each.first == each.last else f"{each.first} to {each.last}"
        parts.append(f"{blocks} (process {each.process_id} on {each.host}, {len(each.replacements)} to train)")
    how = "activations are handed on" if event.relayed else "each runs the teacher from the first block on"
    promised = f"{1e3 * event.step_s:,.3g} ms a step, efficiency {event.efficiency:.2f}"
    return f"{event.phase}: {'; '.join(parts)}; {how}; expected: {promised}"


def engine_line(event: e.EngineTried) -> str:
    """One row of the table of engines, as a line."""
    speed = f"{event.samples_per_s:>9,.0f}/s" if event.samples_per_s is not None else " " * 11
    exact = f", KL {event.kl:.1e}" if event.kl is not None else ""
    exact += f", same class {100 * event.agreement:.1f} %" if event.agreement is not None else ""
    exact += f", losses within {100 * event.loss_error:.2f} %" if event.loss_error is not None else ""
    exact += ", remembered" if event.remembered and event.chosen else ""
    verdict = " <- chosen" if event.chosen else f" (not taken: {event.refused})" if event.refused else ""
    return f"{event.role}: {event.engine:<36}{speed}{exact}{verdict}"

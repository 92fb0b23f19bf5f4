"""A run's numbers for Prometheus: its events, added up and written in the text format 0.0.4.

The format is a few lines to write; the client library would bring a registry for the whole process and collectors that
nobody asked for. What is not known yet is left out, never zero.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping

import click

from stillhouse.cli.tally import Tally
from stillhouse.foundation import events as e

STATES = ("unplaced", "loading", "idle", "busy", "suspect", "draining")

GROUP_STATES = ("starting", "loading", "training", "done")

_COUNTED = {
    "workers_joined": ("workers_joined_total", "Teachers that joined."),
    "workers_refused": ("workers_refused_total", "Teachers that wanted to join and did not: turned away, or gone."),
    "workers_lost": ("workers_lost_total", "Teachers that went without leave."),
    "questions_reissued": ("leases_reissued_total", "Questions taken from a teacher and asked again."),
    "questions_hedged": ("leases_hedged_total", "Questions asked of a second teacher."),
    "answers_dropped": ("answers_dropped_total", "Answers that came too late."),
    "unanswered": ("views_unanswered_total", "Views about which no teacher was left to be asked."),
    "hits": ("store_hits_total", "Views read from the label store."),
    "misses": ("store_misses_total", "Views asked of the teacher."),
}

metrics_option = click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve the run's numbers for Prometheus at http://127.0.0.1:PORT/metrics; 0: any free port.",
)


class Metrics:
    """Hears events in one thread, is read in others."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._lock = threading.Lock()

    def hear(self, event: e.Event) -> None:
        """Take one event."""
        with self._lock:
            self._tally.hear(event)

    def text(self) -> str:
        """All numbers as of now."""
        with self._lock:
            lines = [*_fleet(self._tally), *_group(self._tally), *_sums(self._tally), *_progress(self._tally)]
        return "".join(f"{line}\n" for line in lines)


def _fleet(tally: Tally) -> Iterable[str]:
    fleet = tally.fleet
    if fleet is None:
        return
    states = Counter(each.state for each in fleet.workers)
    yield from _metric("workers", "gauge", "Teachers by state.", {each: states[each] for each in STATES}, "state")
    yield from _metric("worker_views_total", "counter", "Views answered by a teacher.", tally.views, "worker")
    busy = {each.name: each.busy_share for each in fleet.workers}
    yield from _metric("worker_busy_share", "gauge", "Share of its time that a teacher lately worked.", busy, "worker")
    for name, value, what in (
        ("views_per_second", tally.rate, "Views answered lately by all teachers."),
        ("starved_share", fleet.starved_share, "Share of its time that the student lately waited for an answer."),
        ("buffered_views", fleet.buffered, "Views answered and not used yet."),
        ("open_views", fleet.open, "Views asked and not used yet."),
        ("window_views", fleet.window, "Views that may be asked and not used yet."),
        ("student_answers_itself", int(fleet.inline), "Whether a waiting student answers itself."),
    ):
        yield from _metric(name, "gauge", what, {"": value})
    what = "Views that the student answered itself."
    yield from _metric("student_views_total", "counter", what, {"": fleet.own_views})


def _group(tally: Tally) -> Iterable[str]:
    """Students that train together, by their number from 1."""
    if tally.group is None:
        return
    states = Counter(each.state for each in tally.group.students)
    named = {each: states[each] for each in GROUP_STATES}
    yield from _metric("students", "gauge", "Students that train one network together, by state.", named, "state")
    for name, field, what in (
        ("student_step", "step", "Steps that a student of several has done."),
        ("student_samples_per_second", "samples_per_s", "Samples/s that a student of several lately took."),
        ("student_starved_share", "starved_share", "Share of its time that a student of several lately waited."),
    ):
        values = {str(at): getattr(each, field) for at, each in enumerate(tally.group.students, 1)}
        yield from _metric(name, "gauge", what, values, "student")


def _sums(tally: Tally) -> Iterable[str]:
    for key, (name, what) in _COUNTED.items():
        if key in tally.counts:
            yield from _metric(name, "counter", what, {"": tally.counts[key]})


def _progress(tally: Tally) -> Iterable[str]:
    told = tally.progress
    losses = {phase: each.losses["total"] for phase, each in told.items() if "total" in each.losses}
    yield from _metric("step", "gauge", "Steps done.", {phase: each.step for phase, each in told.items()}, "phase")
    yield from _metric("epoch", "gauge", "Epochs done.", {phase: each.epoch for phase, each in told.items()}, "phase")
    yield from _metric("loss", "gauge", "The loss lately, a mean.", losses, "phase")


def _metric(name: str, kind: str, what: str, values: Mapping[str, float], label: str = "") -> Iterable[str]:
    """The lines of one metric, a value for each value of its label; none where there is no value."""
    if not values:
        return
    yield f"# HELP stillhouse_{name} {what}"
    yield f"# TYPE stillhouse_{name} {kind}"
    for each, value in values.items():
        told = f'{{{label}="{_escaped(each)}"}}' if label else ""
        yield f"stillhouse_{name}{told} {value!r}"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

"""The fleet in words: a table of its workers, and what the result counts. Without a fleet there is nothing to tell."""

from __future__ import annotations

from collections.abc import Mapping

from stillhouse.report.numbers import MISSING, dig, figure, grouped, percent, three_digits
from stillhouse.report.read import Run
from stillhouse.report.table import Table
from stillhouse.report.teachers import Teachers, Worker

_COUNTS = {
    "workers_joined": "Teachers that joined",
    "workers_refused": "Turned away",
    "workers_lost": "Lost on the way",
    "workers_suspected": "Let their time pass",
    "questions_reissued": "Questions asked again",
    "questions_hedged": "Asked of a second teacher",
    "answers_dropped": "Answers that came too late",
    "unanswered": "Views that nobody answered",
}
_TABLE_MAX = 60


def facts(run: Run, found: Teachers) -> list[tuple[str, str]]:
    """What the result counts of the fleet, over all processes of the run."""
    told = dig(run.result, "fleet")
    if not isinstance(told, Mapping):
        return []
    pairs = [(words, grouped(figure(told, name))) for name, words in _COUNTS.items() if figure(told, name) is not None]
    return [*pairs, ("Answered by the student", f"{grouped(found.own_views)} views")] if pairs else []


def sentence(run: Run) -> str:
    """Whether anything was lost with the teachers that were; empty while the run is unfinished."""
    told = dig(run.result, "fleet")
    lost, again, unanswered = (figure(told, name) for name in ("workers_lost", "questions_reissued", "unanswered"))
    if not figure(told, "workers_joined") or unanswered is None:
        return ""
    words = f"{_counted(unanswered, 'view')} had no answer." if unanswered else "Every view was answered."
    if lost:
        words += f" {_counted(lost, 'teacher')} {'was' if lost == 1 else 'were'} lost on the way"
        words += f", and {_counted(again, 'question')} {'was' if again == 1 else 'were'} asked again." if again else "."
    return words if unanswered or not lost else f"No answer was lost. {words}"


def _counted(number: float, noun: str) -> str:
    return f"{grouped(number)} {noun}{'' if number == 1 else 's'}"


def table(run: Run, found: Teachers) -> Table | None:
    """A row for each worker, those that answered most if there are very many; None where there was none."""
    if not found.workers:
        return None
    most = sorted(found.workers, key=lambda each: -each.views)[:_TABLE_MAX]
    stayed = "stayed to the end" if run.result is not None else "was there to the last"
    now = max(each.process for each in found.workers)
    rows = [
        _row(each, stayed if each.process == now else "the run was stopped")
        for each in found.workers
        if any(each is other for other in most)
    ]
    more = len(found.workers) - len(rows)
    head = ["Teacher", "Host", "Device", "Engine", "Views/s", "Views answered", "Busy", "End"]
    note = "Views/s: while it works. Views answered: needed or not. Busy: share of its time after loading."
    note += f" {more} more that answered less are left out." if more else ""
    return Table("Teachers of this run", head, rows, words=True, note=note)


def _row(worker: Worker, stayed: str) -> list[str]:
    host, device, engine = (str(worker.facts.get(name) or MISSING) for name in ("host", "device", "engine"))
    pace = three_digits(1 / worker.pace_s) if worker.pace_s else MISSING
    why = worker.why.splitlines()[0] if worker.why else ""
    end = worker.how + (f": {why}" if why and worker.how not in why else "") if worker.how else stayed
    end = why if worker.how and why.startswith(worker.how) else end
    return [worker.name, host, device, engine, pace, grouped(worker.views), percent(worker.busy_share, 0), end]

"""A search as its events tell it: every trial, what was spent, what was found. For ``result.json`` and the report."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from stillhouse.foundation.search_events import OUTDONE
from stillhouse.report.search.front import fronts

_FINALIST = ("trial", "member", "accuracy", "params", "arch", "options", "epochs")
Events = Sequence[Mapping[str, Any]]


def sought(events: Events) -> dict[str, Any] | None:
    """The result's section ``search``; None where nothing was searched.

    A trial's line of a rung may stand there twice, where a process was killed before its record had it: the last one
    counts.
    """
    trials: dict[int, dict[str, Any]] = {}
    finalists: dict[tuple[int, int], dict[str, Any]] = {}
    importances: dict[str, float] = {}
    student = None
    epochs: dict[tuple[int, int], int] = {}
    lost: dict[int, float] = {}
    final_epochs: dict[tuple[int, int], int] = {}
    over = False
    for event in events:
        kind = event["event"]
        if kind == "TrialBegun":
            over = False
            finalists.clear()  # of a search that was given more trials
            for number in [each for each in trials if each >= event["trial"]]:  # of a record that was thrown away
                del trials[number]
            told = {"point": event["point"], "costs": event["costs"], "graphs": event.get("graphs", "")}
            trials[event["trial"]] = {**_fresh(event["trial"]), **told}
        elif kind == "TrialReached":
            epochs[event["trial"], event["rung"]] = event["trained_epochs"]
            trial = trials.setdefault(event["trial"], _fresh(event["trial"]))
            value = statistics.mean(event["members"])
            trial["rungs"][str(event["epochs"])] = round(value, 6)
            trial["members"] = event["members"]
        elif kind == "TrialEnded":
            told = {"ended": event["why"], "failed": event["failed"]}
            lost[event["trial"]] = event.get("trained_epochs", 0.0)
            trials.setdefault(event["trial"], _fresh(event["trial"])).update(told)
        elif kind == "FinalistTrained":
            told = {name: event[name] for name in _FINALIST if name in event}
            finalists[event["trial"], event["member"]] = told
            final_epochs[event["trial"], event["member"]] = event.get("epochs", 0)
        elif kind == "SearchMeasured":
            importances, over = dict(event["importances"]), True
        elif kind == "StudentFound":
            student = {"trial": event["trial"], "member": event["member"]}
    if not trials:
        return None
    top = max((len(each["rungs"]) for each in trials.values()), default=0)
    for each in trials.values() if over else ():
        if each["rungs"] and len(each["rungs"]) < top and not each["ended"]:
            each["ended"] = OUTDONE
    in_order = [trials[number] for number in sorted(trials)]
    return {
        "trials": in_order,
        "front": fronts(in_order),
        "trained_epochs": round(sum(epochs.values()) + sum(lost.values()), 1),
        "finalist_epochs": sum(final_epochs.values()),
        "importances": importances,
        "finalists": list(finalists.values()),
        "student": student,
    }


def with_student(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events with the training of the finalist that became the student told as the student's."""
    found = next((each for each in reversed(events) if each["event"] == "StudentFound"), None)
    if found is None:
        return list(events)
    name = f"finalist-{found['trial']}-{found['member']}"
    return [{**each, "phase": "student"} if each.get("phase") == name else each for each in events]


def short(key: str) -> str:
    """A key by its last words."""
    return ".".join(key.split(".")[-2:]).removeprefix("options.").removeprefix("optimizer.")


def _fresh(number: int) -> dict[str, Any]:
    """What is known of a trial of which nothing was told yet."""
    return {
        "trial": number,
        "point": {},
        "costs": {},
        "graphs": "",
        "rungs": {},
        "members": [],
        "ended": "",
        "failed": False,
    }

"""What the page says of a search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillhouse.report.html import write_report
from stillhouse.report.search.front import finished, front
from stillhouse.report.search.read import sought, with_student

from .test_report_blockwise import evaluated
from .test_report_html import Outline

Json = dict[str, Any]
POINT = {
    "student.model.options.top.nodes": 4,
    "objective.kd.temperature": 3.5,
    "student.model.options.operation": "conv",
}
COSTS = {"params": 1000.0, "macs": 2e5, "bytes": 4e3, "peak_bytes": 9e3, "latency_ms": 0.2}


def begun(trial: int, macs: float = 2e5) -> Json:
    return {"event": "TrialBegun", "trial": trial, "point": POINT, "costs": {**COSTS, "macs": macs}}


def reached(trial: int, rung: int, *members: float) -> Json:
    epochs = 2**rung
    trained = {"trained_epochs": epochs * len(members), "seconds": 1.0}
    return {
        "event": "TrialReached",
        "trial": trial,
        "rung": rung,
        "epochs": epochs,
        "members": list(members),
        **trained,
    }


def finalist(trial: int, member: int, accuracy: float) -> Json:
    options = {"seed": member, "widths": [4, 8, 16]}
    told = {"accuracy": accuracy, "params": 990, "arch": "random_graph", "options": options}
    return {"event": "FinalistTrained", "trial": trial, "member": member, **told}


EVENTS: list[Json] = [
    begun(0),
    reached(0, 0, 0.5),
    begun(1, 3e5),
    reached(1, 0, 0.6),
    reached(1, 1, 0.7, 0.72),
    {"event": "TrialEnded", "trial": 2, "why": "beyond the budget: macs by 12 %", "failed": False},
    {"event": "TrialEnded", "trial": 3, "why": "<b>it exploded</b>", "failed": True},
    reached(0, 1, 0.75, 0.85),
    {"event": "SearchMeasured", "importances": {"objective.kd.temperature": 0.75}},
    finalist(0, 0, 0.88),
    finalist(0, 1, 0.9),
    {"event": "StudentFound", "trial": 0, "member": 1},
]


def test_what_the_events_tell() -> None:
    """Each trial by its point, costs, rungs and end; what was spent; who became the student."""
    found = sought(EVENTS)
    assert found is not None and sought([evaluated("student", 0.5)]) is None
    assert [each["rungs"] for each in found["trials"]] == [{"1": 0.5, "2": 0.8}, {"1": 0.6, "2": 0.71}, {}, {}]
    assert found["trained_epochs"] == 1 + 1 + 4 + 4
    assert found["trials"][3]["failed"] and found["trials"][2]["ended"].startswith("beyond")
    assert found["student"] == {"trial": 0, "member": 1} and len(found["finalists"]) == 2
    assert [each["trial"] for each in finished(found)] == [0, 1]
    assert found["front"] == {"params": [0], "macs": [0], "bytes": [0], "peak_bytes": [0], "latency_ms": [0]}


def test_what_is_told_twice_counts_once() -> None:
    """A kill between the telling and the record; a record that was thrown away begins anew."""
    found = sought([begun(0), reached(0, 0, 0.5), reached(0, 0, 0.5), reached(0, 1, 0.6, 0.8)])
    assert found is not None and found["trained_epochs"] == 1 + 4
    again = sought([begun(0), reached(0, 0, 0.5), begun(1), reached(1, 0, 0.9), begun(0, 5e5), reached(0, 0, 0.1)])
    assert again is not None and [each["rungs"] for each in again["trials"]] == [{"1": 0.1}]


def test_the_student_is_the_finalist_that_was_chosen() -> None:
    """Its training is told as the student's; the other's keeps its name."""
    told = [evaluated(f"finalist-0-{member}", 0.9) for member in (0, 1)]
    phases = [each.get("phase") for each in with_student([*told, *EVENTS])][:2]
    assert phases == ["finalist-0-0", "student"]
    assert with_student(told) == told


def test_nothing_on_the_front_is_beaten() -> None:
    """Cheapest first, each better than the one before."""
    made = [
        {"trial": n, "rungs": {"1": value}, "costs": {"macs": macs}}
        for n, (value, macs) in enumerate([(0.5, 1.0), (0.4, 2.0), (0.9, 4.0), (0.7, 3.0), (0.9, 5.0), (0.6, 1.0)])
    ]
    assert [each["trial"] for each in front(made, "macs")] == [5, 3, 2]


def test_all_of_a_search_is_told(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """Trials, spending, families, members drawn, what mattered: each is on the page, and names are escaped."""
    folder = make_run(tmp_path / "run", None, [*EVENTS, evaluated("student", 0.91)])
    page = write_report(folder).read_text()
    outline = Outline(page)
    words = outline.words()
    told = (
        "2 trials were trained for 10 epochs in all; 1 did not keep to the budget and 1 could not be trained.",
        "After 10 epochs of training the best family gets 80.0 % right.",
        "Of 2 trials 2 were trained for 2 epochs.",
        "Members of the best family: 3 cells, 9 operations.", "finalist 0-1, the student",
        "2 epochs",
        "75.0 to 85.0 %", "objective.kd.temperature", "75 %", "top.nodes 4",
        "beyond the budget: macs by 12 %", "<b>it exploded</b>",
    )  # fmt: skip
    assert [each for each in told if each not in words] == []
    assert "<b>it exploded" not in page
    ids = {str(svg["aria-label"])[:12] for svg in outline.svgs}
    assert {"Accuracy aga", "Of 2 trials ", "By multiply-", "Finalist 0 o"} <= ids
    assert len(outline.ids) == len(set(outline.ids))


def test_a_store_that_was_full_spared_the_teacher(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """As it is for a second search with the same teacher."""
    folder = make_run(tmp_path / "run", {"format": 1, "store": {"hits": 2400, "misses": 0}}, EVENTS)
    words = Outline(write_report(folder).read_text()).words()
    assert "The teacher was not asked once: all 2,400 answers were read from the store." in words


def test_a_search_that_only_began(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """One trial without a value: a table, no figure."""
    folder = make_run(tmp_path / "run", None, [begun(0)])
    words = Outline(write_report(folder).read_text()).words()
    assert "0 trials were trained for 0 epochs in all." in words and "All trials" in words


def test_strange_values_make_a_page(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """Another version's events, half told."""
    odd = [
        {"event": "TrialBegun", "trial": 5, "point": {}, "costs": {}},
        {**reached(5, 0, 0.5)},
        {**finalist(5, 0, 0.5), "options": {"unknown": 1}},
        {**finalist(5, 1, 0.5), "arch": "resnet"},
    ]
    folder = make_run(tmp_path / "run", None, odd)
    assert "The search" in Outline(write_report(folder).read_text()).words()
    json.dumps(sought(odd))

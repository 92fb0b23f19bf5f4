"""What a run directory may look like, and what the terminal says about it. No training, no torch: about 3 s."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stillhouse.foundation.errors import RunDirError
from stillhouse.report.compare import print_result, rows
from stillhouse.report.draw import spread
from stillhouse.report.html import write_report
from stillhouse.report.numbers import count, milliseconds, percent, points, seconds, size
from stillhouse.report.read import read_run
from stillhouse.report.words import costs, together

Json = dict[str, Any]
MakeRun = Callable[..., Path]
KEYS = "method name teacher student control verdict throughput energy wall_s phase_s digests export data"


@pytest.mark.parametrize("key", [*KEYS.split(), "environment", "warnings"])
@pytest.mark.parametrize("value", ["absent", None, {}])
def test_a_missing_key_is_no_obstacle(key: str, value: Any, result: Json, make_run: MakeRun, tmp_path: Path) -> None:
    """Any optional part of the result may be missing, null or empty."""
    if value == "absent":
        del result[key]
    else:
        result[key] = value
    folder = make_run(tmp_path / "old", result, [])
    write_report(folder)
    print_result(result, folder, Console(file=StringIO(), width=80))


def test_a_resumed_phase_is_told_once(
    trained: Callable[..., list[Json]], told: Callable[..., Json], make_run: MakeRun, tmp_path: Path
) -> None:
    """What a killed process told after its last checkpoint is replaced by what the resumed one tells."""
    again = [{"event": "PhaseStarted", "phase": "student", "step": 4, "steps": 12}, told("student", 6, 0.25)]
    phase = read_run(make_run(tmp_path / "run", None, [*trained("student", 0.9, 9), *again])).phases["student"]
    assert [point.step for point in phase.points] == [1, 2, 3, 4, 6]
    assert [step for step, _, _ in phase.evaluations] == [4]


def test_foreign_folders_are_refused(events: list[Json], make_run: MakeRun, tmp_path: Path) -> None:
    """A folder that is no run, or another version's, is refused by name and nothing is written into it."""
    with pytest.raises(RunDirError, match=r"no recipe\.yaml"):
        write_report(tmp_path)
    with pytest.raises(RunDirError, match="format 2"):
        write_report(make_run(tmp_path / "later", {"format": 2}, events))
    folder = make_run(tmp_path / "foreign", None, [])
    (folder / "events.jsonl").write_text('{"level": "info"}\n')
    with pytest.raises(RunDirError, match="no event"):
        write_report(folder)
    assert not list(tmp_path.rglob("report.html"))


def test_terminal(result: Json, tmp_path: Path) -> None:
    """The terminal's answer starts with the verdict, fits 80 columns and takes brackets literally."""
    result["warnings"] = ["[bold]not markup[/bold]"]
    output = StringIO()
    print_result(result, tmp_path, Console(file=output, width=80))
    lines = output.getvalue().strip().splitlines()
    assert lines[0].startswith("Distillation helped: +1.9 points")
    assert "[bold]not markup[/bold]" in output.getvalue()
    table = [line.rstrip() for line in lines if "×" in line]
    assert [line.split("  ")[0] for line in table] == [row.label for row in rows(result) if "×" in row.ratio]


def test_a_worse_student_is_said_to_be_worse(result: Json) -> None:
    """Ratios are never flattered: more parameters are more, equal ones are the same."""
    result["student"] |= {"params": 1394000, "macs": 5230000, "latency_ms": 3.42}
    ratios = {row.label: row.ratio for row in rows(result)}
    assert ratios["Parameters"] == "2.0× more"
    assert ratios["Latency, one sample"] == "2.0× larger"
    assert ratios["Multiply-adds"] == "the same"


def test_labels_keep_their_distance() -> None:
    """Labels at line ends never overlap and keep the order of their lines."""
    placed = spread([0.9, 0.88, 0.2, 0.87], 0.1)
    order = sorted(placed)
    assert all(high - low >= 0.1 - 1e-9 for low, high in itertools.pairwise(order))
    assert placed[0] > placed[1] > placed[3] > placed[2]


def test_light_import() -> None:
    """Printing a result imports neither matplotlib nor jinja2 nor torch."""
    code = (
        "import sys, stillhouse.report.compare, stillhouse.report.html;"
        "print([name for name in ('matplotlib', 'jinja2', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numbers_are_a_persons() -> None:
    """Numbers carry a fitting unit and three digits, also at the edges of a unit; a missing one is a dash."""
    assert [count(56_600), count(999), count(999_700), count(1_234_567)] == ["56.6 k", "999", "1.00 M", "1.23 M"]
    assert [size(0), size(3_400_000), size(None)] == ["0 B", "3.40 MB", "\N{EN DASH}"]
    assert [milliseconds(0.42), milliseconds(0.042), milliseconds(1500)] == [
        "0.42 ms",
        "42.0 \N{MICRO SIGN}s",
        "1.50 s",
    ]
    assert [seconds(52.1), seconds(192), seconds(8040), seconds(0)] == ["52.1 s", "3 min 12 s", "2 h 14 min", "0.0 s"]
    assert [percent(0.978), points(0.019), points(-0.0001)] == ["97.8 %", "+1.9 points", "±0.0 points"]


def test_several_students_are_told(result: Json, make_run: MakeRun, tmp_path: Path) -> None:
    """How many trained together and how often one was lost stands where speed is told; of one alone nothing is said."""
    assert together(read_run(make_run(tmp_path / "alone", result, []))) == ""
    told = result | {"students": {"together": 3, "lost": 2}}
    words = together(read_run(make_run(tmp_path / "three", told, [])))
    assert words.startswith("3 students trained it together. 2 times one of them was lost")
    told = result | {"students": {"together": 1, "lost": 0, "course": [[0, 2], [11, 3], [1200, 1]]}}
    words = together(read_run(make_run(tmp_path / "changed", told, [])))
    assert words == "Students that trained it together: 2 up to step 11, 3 up to step 1,200, then 1."


def test_energy_by_phase(result: Json, make_run: MakeRun, tmp_path: Path) -> None:
    """Each phase is told with its seconds and joules, in the order of the run, as far as they are known."""
    result["energy"] = {
        "joules": None,
        "source": "unavailable: the counter was lost",
        "by_phase": {"teach": 1234.0, "teacher": None, "blocks": None, "student": 0.4},
    }
    assert costs(read_run(make_run(tmp_path / "run", result, []))) == [
        ("Whole run", "52.1 s"),
        ("Teacher, answering ahead", "1.23 kJ"),
        ("Teacher", "20.1 s"),
        ("Student", "8.2 s, 0.4 J"),
        ("Control, seed 2", "7.5 s"),
        ("Energy", "unavailable: the counter was lost"),
    ]

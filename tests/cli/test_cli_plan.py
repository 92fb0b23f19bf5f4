"""``plan`` says how many teachers a run wants, and what it was not told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import Call, refused

RATES = ("--student", "1000:1:100", "--teacher", "cpu:100:0.1:50:20", "--teacher", "gpu:900:0.6:300:2")


def test_a_table_of_mixes(tiny: Path, call: Call) -> None:
    """The mix to take is marked, its simulated throughput stands beside the expected one; nothing is written."""
    said = call("plan", tiny, *RATES)
    assert said.code == 0, said.err
    assert re.search(r"^\* +2 x gpu +1,000 +(9\d\d|1,000) ", said.out, re.MULTILINE), said.out
    assert re.search("^ +teachers +samples/s +simulated +starved +idle +time +cost +energy *$", said.out, re.MULTILINE)
    assert "2 x gpu: 100 % of the student's own rate expected, 100 % simulated." in said.out
    assert list(Path.cwd().iterdir()) == []


def test_a_narrow_terminal_shows_all(tiny: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 80 columns neither a mix nor the last column is cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    said = re.sub(r"\x1b\[[0-9;]*m", "", call("plan", tiny, *RATES).out).partition("Samples/s:")[0]
    table = said[said.index("  teachers") :]
    assert re.search("^ +teachers .* energy *$", table, re.MULTILINE)
    assert re.search(r"^\* 2 x gpu .* Wh *$", table, re.MULTILINE)
    assert "\N{HORIZONTAL ELLIPSIS}" not in table and max(map(len, table.splitlines())) <= 80


def test_columns_of_what_has_no_price_are_left_out(tiny: Path, call: Call) -> None:
    """Where no price and no power is given neither has a column; a fleet of one kind is told as a command."""
    said = call("plan", tiny, "--student", 1000, "--teacher", "cpu:300")
    assert re.search("^ +teachers +samples/s +simulated +starved +idle +time *$", said.out, re.MULTILINE)
    assert f"stillhouse run {tiny} --workers 4" in said.out


def test_a_page_with_a_plot(tiny: Path, tmp_path: Path, call: Call) -> None:
    """The page holds the plot and the table, says what is simulated, and refers to nothing outside."""
    said = call("plan", tiny, *RATES, "--html", tmp_path / "plan.html")
    assert said.code == 0, said.err
    page = (tmp_path / "plan.html").read_text()
    assert "<svg" in page and "2 x gpu" in page and "imulated" in page
    assert "<script" not in page and not re.search(r"(?:src|href)=[\"'](?!#)", page)
    assert call("plan", tiny, *RATES, "--html", tmp_path / "again.html").code == 0
    assert (tmp_path / "again.html").read_text() == page


def test_speeds_of_a_run(tiny: Path, call: Call) -> None:
    """A finished run tells its speeds; what it stored is planned as if it were asked again, and said to be there."""
    assert call("run", tiny, "--out", "job", "--set", "knowledge.source=inline").code == 0
    said = call("plan", tiny, "--from", "job", "--set", "knowledge.source=inline")
    assert said.code == 0, said.err
    assert "samples/s when it never waits (measured)" in said.out and "Teacher teacher" in said.out
    kept = ("--set", "knowledge.source=stored", "--set", "store.path=labels")
    assert call("run", tiny, "--out", "stored", *kept).code == 0
    said = call("plan", tiny, "--from", "stored", *kept)
    assert said.code == 0 and "planned as if nothing were stored" in said.out and "samples/s" in said.out
    assert call("run", tiny, "--out", "read", *kept).code == 0
    refused(call("plan", tiny, "--from", "read", *kept), "that run read all answers from the label store", "--teacher")
    refused(call("plan", tiny, "--from", "job", "--set", "seed=3"), "a run of another recipe", "seed")


def test_nothing_is_asked(tiny: Path, call: Call) -> None:
    """A student without a teacher wants none."""
    said = call("plan", tiny, "--set", "objective={cross_entropy: 1, kd: null}")
    assert said.code == 0 and said.out == "nothing to plan: the objective asks nothing of a teacher\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--student RATE"),
        (("--student", "1000"), "--teacher NAME:RATE"),
        (("--student", "1000", "--teacher", "cpu"), "--teacher cpu:RATE"),
        (("--student", "1000", "--teacher", ":5"), "not of the form NAME:RATE[:PRICE[:WATTS[:COUNT]]]"),
        (("--student", "1000", "--teacher", "cpu:fast"), "'fast' is no rate"),
        (("--student", "1000", "--teacher", "cpu:0"), "'0' is no rate"),
        (("--student", "1000", "--teacher", "cpu:5:1:1:1.5"), "'1.5' is no number of workers"),
        (("--student", "1000", "--teacher", "cpu:5:1:1:0"), "'0' is no number of workers"),
        (("--student", "1000:1:1:1", "--teacher", "cpu:5"), "not of the form RATE[:PRICE[:WATTS]]"),
        (("--student", "1000", "--teacher", "cpu:5", "--share", "0"), "share"),
        (("--from", "nowhere"), "nowhere holds no run"),
    ],
)
def test_what_is_missing_or_wrong_is_told(tiny: Path, call: Call, words: tuple[str, ...], told: str) -> None:
    """Every mistake has exit code 2 and says what to give."""
    refused(call("plan", tiny, *words), told)


def test_no_torch(tiny: Path) -> None:
    """A plan is made without torch."""
    code = (
        f"import sys; sys.argv = ['stillhouse', 'plan', {str(tiny)!r}, '--student', '1000', '--teacher', 'cpu:300']\n"
        "from stillhouse.cli.main import main\nmain()\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""What a process that a run starts imports: what the run itself may, and nothing that only lies where one stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.runner.blockwise.crew import WORKERS
from stillhouse.runner.gathering import STUDENTS
from stillhouse.runner.housing import WORKER
from stillhouse.runner.joining import RAY
from stillhouse.runtime.local.children import Child


def test_the_folder_one_stands_in_is_no_place_for_modules(tmp_path: Path) -> None:
    """A file that is called like a library and lies in the current folder is not run by a worker or a student."""
    for library in ("numpy", "torch", "click", "stillhouse"):
        (tmp_path / f"{library}.py").write_text("raise SystemExit('run from where one stands')")
    for command in (WORKER, STUDENTS.command, WORKERS.command, RAY):
        done = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "run from where one stands" not in done.stderr
        # It was given no address; the extra is missing.
        known = ("not enough values to unpack", "No module named 'ray'")
        assert done.returncode == 0 or any(words in done.stderr for words in known), done.stderr


def test_a_child_finds_what_its_run_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside the user's own program is found by the processes that the program starts, too."""
    (tmp_path / "beside_mine.py").write_text("CODE = 7")
    command = [sys.executable, "-P", "-c", "import sys, beside_mine; sys.exit(beside_mine.CODE)"]
    assert "No module named 'beside_mine'" in _end(Child(command))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert _end(Child(command)) == "exit code 7"


def _end(child: Child) -> str:
    child._process.wait(60)
    return child.bury()

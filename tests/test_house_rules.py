"""House rules that a machine can keep: sizes, names of rooms, no torch where none is needed, recipes that run."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "stillhouse"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def test_files_are_small() -> None:
    """No file has more than 400 lines, tests and benchmarks included, and half of the package's less than 150."""
    beside = [path for folder in ("tests", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py")]
    lines = {path: len(path.read_text().splitlines()) for path in (*FILES, *beside)}
    assert not [path.name for path, count in lines.items() if count > 400]
    assert statistics.median(lines[path] for path in FILES) < 150


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_fit_a_screen(path: Path) -> None:
    """No function has more than 70 lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 70, f"{path.name}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_say_what_they_are(path: Path) -> None:
    """Every module opens with a docstring of at most 20 lines."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path.name} has no docstring"
    assert len(docstring.splitlines()) <= 20


def test_architecture_names_every_room() -> None:
    """A newcomer finds each room in docs/architecture.md."""
    text = (ROOT / "docs/architecture.md").read_text()
    for room in ROOMS:
        assert f"| `{room}` |" in text, f"docs/architecture.md does not name the room '{room}'"


@pytest.mark.parametrize(
    "code",
    [
        "import stillhouse",
        "import stillhouse.cli.main",
        "import stillhouse.runner.plan",
        "import stillhouse.runner.fleet_plan",
        "import stillhouse.runner.leaving",
        "import stillhouse.report.html",
        "import stillhouse.data.open",
    ],
)
def test_no_torch_before_it_must(code: str) -> None:
    """Help, check and report answer at once, because none of them imports torch."""
    check = f"import sys; {code}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_no_numbers_drawn_elsewhere() -> None:
    """Random numbers come from foundation.seeding: nobody else makes a generator."""
    for path in FILES:
        text = path.read_text()
        for maker in ("np.random.", "import random", "default_rng", "torch.Generator("):
            assert maker not in text, f"{path.name} uses {maker}"

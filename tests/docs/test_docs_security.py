"""What SECURITY.md promises and a look at the sources can keep."""

from __future__ import annotations

import ast
from pathlib import Path

import stillhouse
from stillhouse.runner.job import _PROBE
from stillhouse.runtime.local import frames

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
FILES = sorted(Path(stillhouse.__file__).parent.rglob("*.py"))


def test_nothing_is_unpickled() -> None:
    """No file imports a pickler, and every ``torch.load`` says ``weights_only=True``."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [each.name for each in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & set(names), path.name
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                said = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert said.get("weights_only") == "True", f"{path.name}:{node.lineno}"


def test_bounds_are_those_that_are_told() -> None:
    """Lengths of frames and of the probe are as written."""
    assert frames.HEADER_BYTES_MAX == 2**20 and "a header has at most 1 MiB" in TEXT
    assert frames.BODY_BYTES_MAX == 2**30 and "at most 1 GiB" in TEXT
    assert _PROBE == 8 and "up to eight views" in TEXT


def test_the_readme_leads_there() -> None:
    """Whoever looks for it finds it from the front page."""
    assert "`SECURITY.md`" in (ROOT / "README.md").read_text()

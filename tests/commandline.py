"""What the tests of the command line share: calling it, and what a refusal looks like."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

SCRIPT = Path(sys.executable).with_name("stillhouse")


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Call = Callable[..., Said]


Call = Callable[..., Said]


def shell(*words: object, limit_bytes: int | None = None, **options: Any) -> Said:
    """The command line as a process of its own; ``limit_bytes``: no file may grow beyond."""
    command = [str(SCRIPT), *map(str, words)]
    if limit_bytes is not None:
        code = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))"
        command = [sys.executable, "-c", f"{code}; os.execv(sys.argv[1], sys.argv[1:])", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    return Said(done.returncode, done.stdout, done.stderr)


def refused(said: Said, *words: str) -> None:
    """Exit code 2, an error message with these words in it, no traceback, no torch noise."""
    text = " ".join(said.err.split())
    assert said.code == 2, said
    assert "Traceback" not in said.out + said.err
    assert len(re.findall("^[eE]rror: ", said.err, re.MULTILINE)) == 1, said.err
    for word in words:
        assert word in text, (word, said.err)


def nothing_left(folder: Path) -> None:
    """No run directory was left behind under ``folder``."""
    left = [str(each) for each in folder.rglob("*") if not (each.name == "runs" and each.is_dir())]
    assert left == []


def changed(recipe: Path, **values: Any) -> Path:
    """The recipe with some values replaced; ``a__b`` is the key ``a.b``."""
    plain = yaml.safe_load(recipe.read_text())
    for key, value in values.items():
        section = plain
        *path, last = key.split("__")
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    recipe.write_text(yaml.safe_dump(plain))
    return recipe


def rewritten(data: Path, image: list[Any] | None = None, label: list[Any] | None = None) -> None:
    """The Parquet file with another column."""
    table = pq.read_table(data)
    columns = {"image": table["image"] if image is None else image, "label": table["label"] if label is None else label}
    pq.write_table(pa.table(columns), data)

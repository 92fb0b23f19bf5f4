"""Every recipe that ships runs to its end, on data cut small and for an epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SHORT = [
    "teacher.train.epochs=1",
    "student.train.epochs=1",
    "teacher.train.warmup_epochs=0",
    "student.train.warmup_epochs=0",
    "teacher.train.engine.compile=false",
    "student.train.engine.compile=false",
    "control.seeds=1",
]
SHORT_BLOCKS = [
    "blockwise.train.epochs=1",
    "blockwise.train.warmup_epochs=0",
    "blockwise.train.engine.compile=false",
    "blockwise.score_samples=50",
    "blockwise.library=[low_rank, slimmer, skip]",
]
SHORT_SEARCH = ["search.trials=2", "search.rungs=[1]", "search.members=1", "search.finalists=1"]


@pytest.fixture(scope="session")
def small_cifar(cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first rows of the CIFAR-10 files under the same names."""
    folder = tmp_path_factory.mktemp("cifar")
    for file in cifar.glob("*.parquet"):
        pq.write_table(pq.read_table(file).slice(0, 600), folder / file.name)
    return folder


def stillhouse(folder: Path, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "stillhouse"), *arguments]
    environment = {**os.environ, "STILLHOUSE_DATA": str(data)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs(recipe: Path, small_cifar: Path, tmp_path: Path) -> None:
    """A recipe in recipes/ passes its check, and a short version of it ends with a result and a report."""
    checked = stillhouse(tmp_path, small_cifar, "check", str(recipe))
    assert checked.returncode == 0, checked.stderr
    sections = yaml.safe_load(recipe.read_text())
    blockwise = "blockwise" in sections
    asked = [*SHORT, *(SHORT_BLOCKS if blockwise else SHORT_SEARCH if "search" in sections else [])]
    settings = [part for setting in asked for part in ("--set", setting)]
    done = stillhouse(tmp_path, small_cifar, "run", str(recipe), "--out", "out", *settings)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["student"]["params"] <= result["teacher"]["params"] / (4 if blockwise else 5)
    assert (tmp_path / "out/report.html").exists()


def test_every_kind_of_recipe_is_here() -> None:
    """The digits demo and the CIFAR-10 job ship, distilled and block by block; a search, too."""
    wanted = {"digits", "cifar10-small", "blockwise-digits", "blockwise-cifar10", "search-digits", "search-cifar10"}
    assert {path.stem for path in RECIPES} >= wanted

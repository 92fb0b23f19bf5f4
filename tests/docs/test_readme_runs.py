"""The README's promises: its recipe, its table of commands and its Python run as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def call(command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's recipe names: photographs (very small ones) and a trained teacher's weights."""
    folder = tmp_path_factory.mktemp("readme")
    noise = np.random.default_rng(0)
    for split, count in (("train", 80), ("test", 20)):
        for label, channel in (("red", 0), ("blue", 2)):
            (folder / "photos" / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                pixels[..., channel] += 80
                Image.fromarray(pixels).save(folder / "photos" / split / label / f"{number}.png")
    call(
        f'{sys.executable} -c "from stillhouse.models.from_timm import build_timm; import safetensors.torch as s; '
        "s.save_model(build_timm('resnet18', {}, 3, 2), 'teacher.safetensors')\"",
        folder,
    )
    (folder / "job.yaml").write_text(blocks("yaml")[0])
    return folder


@pytest.mark.slow
def test_commands_of_the_table_run(job: Path) -> None:
    """Every `stillhouse` command of the README's table ends well, in the order of the table."""
    commands = re.findall(r"^\| `(stillhouse [^`]+)` \|", README, re.MULTILINE)
    assert len(commands) == 10
    for command in commands:
        call(command, job)
    assert (job / "runs/job/report.html").exists() and (job / "runs/job/student.onnx").exists()


@pytest.mark.slow
def test_python_runs(tmp_path: Path) -> None:
    """The README's Python works on a teacher, a student and data of one's own."""
    prelude = (
        "import numpy as np\nfrom torch import nn\n"
        "teacher, student = (nn.Sequential(nn.Linear(8, n), nn.ReLU(), nn.Linear(n, 2)) for n in (32, 4))\n"
        "rows = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)\n"
        "data = list(zip(rows, (rows[:, 0] > 0).astype(int)))\n"
    )
    (tmp_path / "readme.py").write_text(prelude + blocks("python")[0])
    assert "points" in call(f"{sys.executable} -W error readme.py", tmp_path)


def test_make_targets_exist() -> None:
    """Each `make` command that the README names is a target."""
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "fast", "lint", "bench"} <= set(targets)
    for name in re.findall(r"\bmake (\w+)", README):
        assert name in targets

"""What more than one room's tests use: the shared CIFAR-10 files, a data set and a recipe as small as can be."""

from __future__ import annotations

import fcntl
import io
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from PIL import Image

# Shared machines drift: no example of a property test has a time limit.
# Where a change is to land the same cases are tried as last time; elsewhere new ones.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")

# A process under a file size limit would leave torn bytecode behind, for every process after it.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

# Labels and remembered engines of tests go where they are thrown away, one folder for each test process.
_SCRATCH = tempfile.TemporaryDirectory(prefix="stillhouse-tests-")
os.environ["STILLHOUSE_LABELS"] = f"{_SCRATCH.name}/labels"
os.environ["STILLHOUSE_CACHE"] = f"{_SCRATCH.name}/cache"

# Ray reads its mode once, when it is loaded; its token would be written into the home folder.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
# Another test's cluster, or a person's, is none of ours.
os.environ["RAY_ADDRESS"] = "local"

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests of Ray run one after the other, fixtures included, also in several test processes: clusters that start at
    once may draw the same port.
    """
    if item.get_closest_marker("ray") is None:
        return (yield)
    with Path(tempfile.gettempdir(), "stillhouse-tests-ray.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return (yield)


@pytest.fixture(scope="session")
def cifar() -> Path:
    """The folder of CIFAR-10 (JPEG): ``cifar10-jpeg-train.parquet`` and ``cifar10-jpeg-test.parquet``."""
    folder = Path(os.environ.get("STILLHOUSE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "cifar10-jpeg-train.parquet").exists():
        pytest.skip(f"no CIFAR-10 files in {folder}")
    return folder


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """120 grey PNGs of 6x6 pixels in Parquet, three classes that differ in brightness."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 3
    rows = []
    for label in labels:
        pixels = generator.integers(0, 80, (6, 6), np.uint8) + np.uint8(80 * label)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        rows.append(buffer.getvalue())
    path = tmp_path / "tiny.parquet"
    pq.write_table(pa.table({"image": rows, "label": labels}), path)
    return path


@pytest.fixture
def tiny(tiny_data: Path, tmp_path: Path) -> Path:
    """A recipe for ``tiny_data``; a run of it takes about a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"""name: tiny
data:
  source: {{kind: parquet, train: {tiny_data}}}
teacher:
  model: {{arch: mlp, options: {{hidden: [16]}}}}
  train: {{epochs: 1, batch_size: 16}}
student:
  model: {{arch: mlp, options: {{hidden: [4]}}}}
  train: {{epochs: 1, batch_size: 16}}
control: {{seeds: 0}}
compute: {{device: cpu, threads: 1}}
"""
    )
    return path

"""The RayJob's own command on a Ray cluster of several nodes: begun, killed, and begun again. It takes a minute:

STILLHOUSE_RAY_TESTS=1 pytest tests/deploy
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import run

from ..runner.lessons import weights
from ..runner.test_runner_fleet import fleeting, joined
from .test_deploy import read

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif("STILLHOUSE_RAY_TESTS" not in os.environ, reason="takes a minute: STILLHOUSE_RAY_TESTS=1"),
]
ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Like the one of the RayJob: a head without place for teachers, two machines with place for one each."""
    from ray.cluster_utils import Cluster

    ray.shutdown()
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        found.add_node(num_cpus=1)
    yield found
    found.shutdown()


def job(folder: Path, recipe: Recipe, address: str) -> subprocess.Popen[bytes]:
    """The entry command with the job's volumes in a folder, as its pod would call it; with two teachers from the start,
    since one is enough for so small a student.
    """
    (folder / "recipe").mkdir(exist_ok=True)
    (folder / "job").mkdir(exist_ok=True)
    (folder / "recipe" / "job.yaml").write_text(dump(recipe))
    entry = re.sub(r"(?<!\w)/(job|recipe)/", rf"{folder}/\1/", read("rayjob.yaml")["spec"]["entrypoint"])
    entry = entry.replace("--workers 1-8", "--workers 2-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(entry, shell=True, env=os.environ | {"RAY_ADDRESS": address, "PATH": path}, process_group=0)


def test_the_entry_command_begins_and_goes_on(cluster: Any, tmp_path: Path) -> None:
    """Called again after its pod was killed, it ends the run: same weights. Teachers go with a run, frozen or not."""
    recipe = fleeting(tmp_path / "none", workers=0, epochs=40)
    plain = run(recipe, tmp_path / "plain")
    folder = tmp_path / "job" / "runs" / "job"
    first = job(tmp_path, recipe, cluster.address)
    while len(teachers := joined(folder)) < 2 and first.poll() is None:
        time.sleep(0.05)
    os.kill(teachers[0], signal.SIGSTOP)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    begun_s = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in teachers):
        assert time.monotonic() - begun_s < 60.0, "actors outlive their run"
        time.sleep(0.02)
    print(f"\nactors were gone {time.monotonic() - begun_s:.1f} s after their run")
    again = job(tmp_path, recipe, cluster.address)
    assert again.wait(300) == 0
    result = json.loads((folder / "result.json").read_text())
    assert weights(result) == weights(plain)
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["fleet"]["backend"] == "ray"
    assert len(joined(folder)) > 2

"""By which way a teacher joins, and what is said where there is none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from commandline import Call, refused

from stillhouse.foundation.errors import RunDirError
from stillhouse.foundation.stamp import code_stamp
from stillhouse.recipe.load import dump, validate
from stillhouse.runner.joining import DOOR, Cluster, Socket, way_in

from ..cli.conftest import call as call  # the command line in this process
from .conftest import values

RAY_DOOR: dict[str, object] = {"ray": "10.0.0.5:6379", "cpus": 1, "gpus": 0, "keeps": 3, "code": code_stamp()}


def running(folder: Path, door: dict[str, object] | str) -> Path:
    """A run directory whose fleet told where it lives."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text("name: any\n")
    (folder / DOOR).write_text(door if isinstance(door, str) else json.dumps(door))
    return folder


def test_a_run_tells_the_way_in(tmp_path: Path) -> None:
    """A run on this machine tells its socket; one on Ray its cluster, and what a worker takes."""
    assert way_in(running(tmp_path / "here", {"address": "/run/door"})) == Socket("/run/door")
    found = way_in(running(tmp_path / "ray", RAY_DOOR | {"cpus": 2, "gpus": 1}))
    assert found == Cluster("10.0.0.5:6379", 2, 1, 3, code_stamp())
    assert "one worker (2 CPUs and a GPU)" in found.joined() and "keeps 3 at most" in found.joined()
    for address in ("head.example:6379", "[::1]:6379", "[fe80::1%eth0]:6379"):
        assert way_in(Path(address)) == Cluster(address)


def test_a_machine_gets_place_for_one_worker() -> None:
    """Through a run a machine offers what one of its workers takes; through an address all that it has."""
    command = Cluster("head:1", 2, 0).command()
    assert command[0] == sys.executable and {"--address=head:1", "--block"} <= set(command)
    assert {"--num-cpus=2", "--num-gpus=0"} <= set(command)
    assert not any("--num" in word for word in Cluster("head:1").command())


@pytest.mark.parametrize(("door", "words"), [("{", "is damaged"), ({"ray": "head:1"}, "is damaged")])
def test_a_damaged_door_is_told(tmp_path: Path, door: dict[str, object] | str, words: str) -> None:
    """What says nothing useful is told with what to do."""
    with pytest.raises(RunDirError, match=words):
        way_in(running(tmp_path / "run", door))


def test_who_can_not_join(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run, no fleet, and options that mean nothing for a node of a cluster: exit code 2, in words."""
    refused(call("join", tmp_path / "nowhere"), "neither a run directory")
    run = running(tmp_path / "run", RAY_DOOR)
    refused(call("join", run, "--set", "fleet.device=cpu"), "--set and --weights", "on Ray")
    monkeypatch.setattr("stillhouse.runner.joining.find_spec", lambda name: None)
    refused(call("join", run), "stillhouse[ray]")
    monkeypatch.undo()
    refused(call("join", "127.0.0.1:65536"), "ports are from 1 to 65535")
    (run / DOOR).write_text(json.dumps(RAY_DOOR | {"code": "0.0 (other)"}))
    refused(call("join", run), "there stillhouse is 0.0 (other), here")
    (run / DOOR).unlink()
    refused(call("join", run), "has no fleet to join now")
    (run / "recipe.yaml").write_text(dump(validate(values())))
    (run / "result.json").write_text("{}")
    for verb in ("join", "leave"):
        refused(call(verb, run), f"{run} is finished")

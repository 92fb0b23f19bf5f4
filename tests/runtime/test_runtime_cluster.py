"""A Ray cluster is tried before anything waits for it; what can't be used is told in words."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.foundation.errors import Interrupted, UserError
from stillhouse.runtime import cluster

from .acting import Role
from .stages import on_ray


@pytest.fixture
def someone() -> Iterator[str]:
    """Host and port of somebody who listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    """Host and port where nobody listens any more."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Ray writes down the cluster that was started last; nobody names one."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "")
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def says(monkeypatch: pytest.MonkeyPatch, words: str, code: int) -> None:
    """Ray's command says so, and ends."""
    monkeypatch.setattr(cluster, "RAY", (sys.executable, "-c", f"import sys; print({words!r}); sys.exit({code})"))


def test_a_dead_cluster_is_an_error_only_where_it_was_named(
    written: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dead cluster left behind is ignored; a person who named it is told."""
    assert cluster.find() == "local"
    written.write_text(nobody)
    assert cluster.find() == "local"
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    with pytest.raises(UserError, match=f"no Ray cluster can be reached at {re.escape(nobody)}"):
        cluster.find()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:65536")
    with pytest.raises(UserError, match="ports are from 1 to 65535"):
        cluster.find()


def test_the_cluster_that_answers_is_taken(written: Path, someone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cluster that nobody named it is enough that it is well; Ray's own words go to Ray."""
    says(monkeypatch, "", 0)
    written.write_text(someone)
    assert cluster.find() == someone
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster.find() == "local"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ray.exceptions.AuthenticationError: InvalidAuthToken", "does not know this side's token"),
        ("Check failed: Ray couldn't find an authentication token.", "does not know this side's token"),
        ("mismatch: cluster has Ray version 2.9 but local Ray version is 2.60", "has Ray 2.9, and here is 2.60"),
        ("Timed out while waiting for GCS", "does not answer as the head of a Ray cluster"),
    ],
)
def test_why_a_cluster_can_not_be_used(said: str, words: str, someone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Ray says, a person reads what to do."""
    says(monkeypatch, said, 1)
    with pytest.raises(UserError, match=words):
        cluster.try_out(someone)


def test_a_trial_ends(someone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is too slow is ended in time, and says nothing against a cluster: the machine may be busy. It is
    ended at once by who is asked to stop.
    """
    monkeypatch.setattr(cluster, "RAY", (sys.executable, "-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(cluster, "_TRIAL_S", 0.2)
    begun_s = time.monotonic()
    cluster.try_out(someone)
    monkeypatch.setattr(cluster, "_TRIAL_S", 60.0)
    asked = iter([False, True])

    def check() -> None:
        if next(asked):
            raise Interrupted("stopped", 2)

    with pytest.raises(Interrupted):
        cluster.try_out(someone, check)
    assert time.monotonic() - begun_s < 20


def test_a_run_of_hours_tries_again(tmp_path: Path, someone: str, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that answers the second time is taken; one that never does is an error."""
    monkeypatch.setattr(cluster, "_PAUSE_S", 0.0)
    monkeypatch.setenv("RAY_ADDRESS", someone)
    tried = tmp_path / "tried"
    code = f"import pathlib, sys; p = pathlib.Path({str(tried)!r}); n = p.exists(); p.touch(); sys.exit(not n)"
    monkeypatch.setattr(cluster, "RAY", (sys.executable, "-c", code))
    assert cluster.find(trials=2) == someone
    tried.unlink()
    with pytest.raises(UserError, match="does not answer"):
        cluster.find()


@pytest.mark.ray
def test_a_fleet_that_starts_tries_again(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What connects in the middle of a run is no worse off by one answer that did not come."""
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from stillhouse.runtime.ray_backend import connect

    paused: list[object] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "_pause", paused.append)
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    with pytest.raises(UserError, match="no Ray cluster can be reached"):
        connect()
    assert len(paused) == 1


def test_a_way_out_of_a_cluster_that_nobody_named(written: Path, someone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who did not ask for the cluster that is in the way is told how to do without it; who did, is not."""
    written.write_text(someone)
    says(monkeypatch, "AuthenticationError", 1)
    with pytest.raises(UserError, match=r"token.*; or say RAY_ADDRESS=local"):
        cluster.find()
    monkeypatch.setenv("RAY_ADDRESS", someone)
    with pytest.raises(UserError) as told:
        cluster.find()
    assert "local" not in str(told.value)


@pytest.mark.ray
@pytest.mark.slow
def test_a_real_head_knows_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very words of the Ray that is installed: for who has the token, for who has another, and for who has none."""
    with on_ray(Role()):
        from stillhouse.runtime.ray_backend import address

        cluster.try_out(address())
        monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
        with pytest.raises(UserError, match="does not know this side's token"):
            cluster.try_out(address())
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        monkeypatch.setenv("HOME", os.devnull)
        with pytest.raises(UserError, match="does not know this side's token"):
            cluster.try_out(address())

"""Where chaos is made: processes of this machine, or a Ray cluster that is started on it for this alone.

A cluster is the head, with place for all workers but one, and nodes that join and go: each a group of processes, made
by the very command that ``join`` gives.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from stillhouse.foundation.errors import RunDirError, StillhouseError
from stillhouse.recipe.fleet import FleetSection
from stillhouse.runner.joining import DOOR, Cluster, way_in
from stillhouse.runner.prey import Prey, children_of
from stillhouse.runtime.cluster import INLINE, INLINE_BYTES, RAY

_JOINED_MAX = 2
_START_S = 120.0
_END_S = 10.0
_STORE_BYTES = 512 * 2**20
_LOADING = "loading worker"

Start = Callable[[list[str], Mapping[str, str]], subprocess.Popen[bytes]]
"""Starts a process as the leader of its own group: a command, and what its environment has beside this one's."""


class Ground(Protocol):
    """Where the workers of a run live.

    Attributes:
        environment: what the run's own process needs beside this one's.
    """

    environment: Mapping[str, str]

    def prey(self, run: subprocess.Popen[bytes]) -> list[Prey]:
        """Who can be harmed, held anew each time; ``run`` is a child that nobody has waited for."""

    def join(self) -> Prey | None:
        """Add something in which, or which, one worker more can answer; None: there is enough of that."""

    def close(self) -> None:
        """End all that was started here."""


class Machine:
    """The run's workers are its children; those that join are ours.

    Args:
        folder: of the run.
        joining: the command by which a worker joins it.
    """

    environment: Mapping[str, str] = {}

    def __init__(self, folder: Path, joining: list[str], start: Start) -> None:
        self._folder, self._joining, self._start = folder, joining, start
        self._joined: list[subprocess.Popen[bytes]] = []

    def prey(self, run: subprocess.Popen[bytes]) -> list[Prey]:
        """Workers."""
        self._joined = [process for process in self._joined if process.poll() is None]
        started = children_of(run.pid, _LOADING, is_worker)
        return [*started.values(), *(Prey(process.pid, "joining worker") for process in self._joined)]

    def join(self) -> Prey | None:
        """One more worker."""
        if len(self._joined) >= _JOINED_MAX or not (self._folder / DOOR).exists():
            return None
        self._joined.append(self._start(self._joining, {}))
        return Prey(self._joined[-1].pid, "one more worker")

    def close(self) -> None:
        """Those that joined leave."""
        for process in self._joined:
            process.terminate()
        for process in self._joined:
            _ended(process)


class RayCluster:
    """Workers are actors: children of the raylets of a cluster that is ours.

    Args:
        folder: as above; what joins is a node.
        log: of the cluster's own commands.
        check: called while the head starts; ends that, and the cluster, by what it raises.
    """

    def __init__(self, folder: Path, start: Start, section: FleetSection, log: Path, check: Callable[[], None]) -> None:
        self._folder, self._start = folder, start
        self._nodes: list[subprocess.Popen[bytes]] = []
        # Short: names of sockets are, too.
        self._place = Path(tempfile.mkdtemp(prefix="ray-"))
        own = {
            "RAY_ADDRESS": "",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
            f"RAY_{INLINE}": str(INLINE_BYTES),
        }
        assert isinstance(section.threads, int)
        cpus = max(section.workers_range[1] - 1, 1) * section.threads
        head = ["--head", "--block", "--port=0", f"--temp-dir={self._place}", f"--num-cpus={cpus}"]
        more = ["--include-dashboard=false", f"--object-store-memory={_STORE_BYTES}", *_PORTS]
        self._head = start([*RAY, "start", *head, *more], own)
        try:
            self.environment: Mapping[str, str] = own | {"RAY_ADDRESS": self._address(log, check)}
        except BaseException:
            self.close()
            raise

    def _address(self, log: Path, check: Callable[[], None]) -> str:
        told, end_s = self._place / "ray_current_cluster", time.monotonic() + _START_S
        while not (told.exists() and (found := told.read_text().strip())):
            check()
            if self._head.poll() is not None or time.monotonic() > end_s:
                raise StillhouseError(f"no Ray cluster can be started on this machine: see {log}")
            time.sleep(0.1)
        return found

    def prey(self, run: subprocess.Popen[bytes]) -> list[Prey]:
        """Actors, and nodes that joined."""
        self._nodes = [node for node in self._nodes if node.poll() is None]
        found = [Prey(node.pid, "node", group=True) for node in self._nodes]
        for leader in (self._head, *self._nodes):
            for pid, raylet in children_of(leader.pid, "", _is_raylet).items():
                found += children_of(pid, _LOADING, _is_actor).values()
                raylet.close()
        return found

    def join(self) -> Prey | None:
        """One more node, with place for one worker."""
        try:
            found = way_in(self._folder)
        except RunDirError:
            return None
        if len(self._nodes) >= _JOINED_MAX or not isinstance(found, Cluster):
            return None
        self._nodes.append(self._start(found.command(), self.environment))
        return Prey(self._nodes[-1].pid, "one more node", group=True)

    def close(self) -> None:
        """The cluster is no more."""
        for process in (*self._nodes, self._head):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self._place, ignore_errors=True)


_PORTS = ("--min-worker-port=0", "--max-worker-port=0")


def is_worker(command: list[str]) -> bool:
    """Whether this is a worker that a run started on its own machine."""
    return "stillhouse.runner.worker" in command


def _is_raylet(command: list[str]) -> bool:
    return command[0].endswith("/raylet")


def _is_actor(command: list[str]) -> bool:
    return command[0].startswith("ray::TeacherActor")


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

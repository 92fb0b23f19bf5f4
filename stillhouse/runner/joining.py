"""Where teachers come in by hand: the door of a run on this machine, or the cluster on which its workers live."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stillhouse.foundation.errors import RecipeError, RunDirError
from stillhouse.runner.rundir import RunDir
from stillhouse.runtime.cluster import RAY, looks_like_one

DOOR = "fleet.json"


@dataclass(frozen=True)
class Socket:
    """A run that listens: whoever joins is a worker of it."""

    address: str


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster: a machine that joins is a node of it, and workers of runs that wait for a place are put there.

    Attributes:
        address: host and port of its head.
        cpus, gpus: of one worker of the run; None: not known.
        keeps: the most workers that the run keeps; None: not known.
        code: the run's Stillhouse; "": not known.
    """

    address: str
    cpus: int | None = None
    gpus: int | None = None
    keeps: int | None = None
    code: str = ""

    def command(self) -> list[str]:
        """Makes this machine a node with place for one worker, or with all that it has, until SIGTERM drains it."""
        place = [] if self.cpus is None else [f"--num-cpus={self.cpus}", f"--num-gpus={self.gpus}"]
        # Ports of workers are drawn: other nodes may be on this machine.
        ports = ["--min-worker-port=0", "--max-worker-port=0"]
        return [*RAY, "start", f"--address={self.address}", "--block", *place, *ports]

    def joined(self) -> str:
        """What there is to say once this machine is a node."""
        told = f"this machine is a node of the Ray cluster at {self.address}, with place for "
        if self.cpus is None:
            return told + "as many workers as it can hold: runs there use it when they want more than they have"
        each = f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}" + (" and a GPU" if self.gpus else "")
        return (
            f"{told}one worker ({each}): the run puts one here when it wants one more than has a place; it keeps "
            f"{self.keeps} at most (fleet.workers)"
        )


def way_in(path: Path) -> Socket | Cluster:
    """How a teacher joins: ``path`` is a run directory, the socket of a run, or host:port of a Ray cluster.

    Raises:
        RunDirError: there is no way in.
    """
    if path.is_socket():
        return Socket(str(path))
    if looks_like_one(str(path)) and not path.exists():
        return Cluster(str(path))
    if not (path / "recipe.yaml").exists():
        raise RunDirError(f"{path} is neither a run directory, nor the socket of one, nor host:port of a Ray cluster")
    RunDir(path).check_unfinished()
    try:
        return _told(json.loads((path / DOOR).read_text()))
    except FileNotFoundError as error:
        raise RunDirError(
            f"{path} has no fleet to join now: it is not running, was begun without --workers, or asks no teacher "
            "(it trains one, or all answers are stored)"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirError(f"{path / DOOR} is damaged ({error}): stop the run and resume it") from error


def check_ray_installed() -> None:
    """Refuse a recipe that wants Ray where there is none.

    Raises:
        RecipeError: says what to install.
    """
    if find_spec("ray") is None:
        raise RecipeError("fleet.backend: ray needs the extra 'ray': pip install 'stillhouse[ray]', or say local")


def _told(door: Mapping[str, Any]) -> Socket | Cluster:
    if "ray" in door:
        return Cluster(str(door["ray"]), int(door["cpus"]), int(door["gpus"]), int(door["keeps"]), str(door["code"]))
    return Socket(str(door["address"]))

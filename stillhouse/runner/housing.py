"""Where the workers of a run live: processes of this machine (and who joins them), or actors of a Ray cluster."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.data.shared import memory_of, told
from stillhouse.foundation.cpu_time import cores
from stillhouse.foundation.files import sha256, write_atomic, write_json
from stillhouse.foundation.stamp import code_stamp
from stillhouse.recipe.fleet import FleetSection
from stillhouse.runner.job import Job
from stillhouse.runner.joining import DOOR
from stillhouse.runner.worker import prepare
from stillhouse.runtime.backend import Backend
from stillhouse.runtime.local.backend import LocalBackend

_WEIGHTS = "fleet.safetensors"
# Without the folder that a person happens to stand in (-P).
WORKER = (sys.executable, "-P", "-m", "stillhouse.runner.worker")


@dataclass(frozen=True)
class Housing:
    """Workers' home.

    Attributes:
        close: to be called once the backend is closed.
        starts_max: workers that can be started at once; None: they wait for room by themselves.
        wants: what a worker that waits for room wants of a machine, in words.
    """

    backend: Backend
    close: Callable[[], None]
    starts_max: int | None = None
    wants: str = ""


def house(
    section: FleetSection,
    job: Job,
    weights: bytes,
    folder: Path,
    warn: Callable[[str], None],
    turned_away: Callable[[str], None],
    check: Callable[[], None],
    proof_bytes: int,
) -> Housing:
    """Open the backend that a recipe names.

    Args:
        job: what workers are told; its ``weights`` are filled in here.
        weights: of the teacher, a canonical safetensors file.
        folder: of the run; says where workers join.
        warn: told what a person should know.
        turned_away: told of strangers, and of who wanted to join and did not get ready.
        check: called while a cluster is waited for; ends that by what it raises.
        proof_bytes: how long the answers are that a worker shows before it is let in.

    Raises:
        FleetError: no socket can be made.
        UserError: the cluster can't be used.
    """
    if section.backend == "ray":
        return _on_ray(section, job, weights, folder, warn, check)
    place, forget = _shared(weights, folder)
    threads = threads_of(section)
    given = replace(job, weights=place, host=platform.node(), threads=threads).as_json()
    with ExitStack() as undo:
        undo.callback(forget)
        backend = LocalBackend(given, [*WORKER, str(threads)], turned_away, proof_bytes, section.workers_range[0])
        undo.callback(backend.close)
        write_json(folder / DOOR, {"address": backend.address})
        undo.pop_all()

    def close() -> None:
        (folder / DOOR).unlink(missing_ok=True)
        forget()

    return Housing(backend, close, starts_max=cores())


def threads_of(section: FleetSection) -> int:
    """CPU threads of each worker that the run starts; auto: of a machine that nobody knows yet, one."""
    if section.threads != "auto":
        return section.threads
    return 1 if section.backend == "ray" else max(cores() // max(section.workers_range[1], 1), 1)


def _shared(weights: bytes, folder: Path) -> tuple[Mapping[str, Any], Callable[[], None]]:
    """Where other processes of this machine find the weights, and what takes them away."""
    rows, descriptor = memory_of((len(weights),), np.dtype(np.uint8))
    place = told(rows, descriptor)
    if place is None or descriptor is None:
        file = folder / _WEIGHTS
        write_atomic(file, weights)
        return {"path": str(file), "digest": sha256(weights)}, partial(file.unlink, missing_ok=True)
    rows[:] = np.frombuffer(weights, np.uint8)
    return {"path": place["path"], "digest": sha256(weights)}, partial(os.close, descriptor)


def _on_ray(
    section: FleetSection,
    job: Job,
    weights: bytes,
    folder: Path,
    warn: Callable[[str], None],
    check: Callable[[], None],
) -> Housing:
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # read once, when Ray is loaded
    from stillhouse.runtime.ray_backend import RayBackend, address, connect

    disconnect = connect(check)
    threads = threads_of(section)
    answering = partial(prepare, overrides=(f"fleet.threads={threads}",))
    given = replace(job, weights={"content": weights, "digest": sha256(weights)}).as_json()
    gpus = 1 if section.device.startswith("cuda") else 0
    with ExitStack() as undo:
        undo.callback(disconnect)
        backend = RayBackend(given, answering, {"num_cpus": threads, "num_gpus": gpus}, warn)
        undo.callback(backend.close)
        door = {"ray": address(), "cpus": threads, "gpus": gpus, "keeps": section.workers_range[1]}
        write_json(folder / DOOR, {**door, "code": code_stamp()})
        undo.pop_all()

    def close() -> None:
        (folder / DOOR).unlink(missing_ok=True)
        disconnect()

    wants = f"{threads} CPU{'s' if threads > 1 else ''} (fleet.threads)" + (" and a GPU (fleet.device)" if gpus else "")
    return Housing(backend, close, wants=wants)

"""A teacher in a process of its own: loads what the run's job says, proves that it is the same teacher, and answers.

It sees the data as ``sight`` says, or has pixels sent along with each question.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.foundation.allocator import keep_freed_memory
from stillhouse.foundation.errors import ModelError, StillhouseError, UserError
from stillhouse.foundation.files import sha256
from stillhouse.knowledge.encode import Codec
from stillhouse.models.network import Network
from stillhouse.models.placement import resolve_device
from stillhouse.models.taps import shapes
from stillhouse.models.trials import label_of
from stillhouse.models.weights import load_into, read_weights
from stillhouse.recipe.architectures import ModelSection, Normalisation
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.recipe.load import parse
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.answers import encoding_of, identity, runs_here, views_asked
from stillhouse.runner.job import Job
from stillhouse.runner.networks import Networks
from stillhouse.runner.own_engine import freed, own_engine
from stillhouse.runner.sight import Sight, asked, sight_of
from stillhouse.runtime.local.serving import Served, serve
from stillhouse.store.manifest import Identity
from stillhouse.teachers.engine import Teacher
from stillhouse.teachers.messages import unpack

_ANY = Normalisation(mean=(0.0,), std=(1.0,))
_PACE_GROUPS = 3
_TRIED_VIEWS = 512
_SLOTS = 32


def prepare(told: Mapping[str, Any], overrides: tuple[str, ...] = (), weights: Path | None = None) -> Served:
    """Load the teacher of a job and try it.

    Args:
        told: a :class:`Job` as JSON.
        overrides: ``a.b=c`` of the recipe, where this machine has things elsewhere.
        weights: a copy of the teacher's weights, where the run's own can't be mapped.

    Raises:
        UserError: what is here is not what the run wants; says what differs.
    """
    job = Job.from_json(told)
    recipe = parse(job.recipe, overrides, "the run's recipe")
    device = resolve_device(recipe.fleet.device, "fleet.device")
    if (threads := _threads(recipe, job)) is not None:
        torch.set_num_threads(threads)
    network = _network(recipe, job, weights)
    _check_same(recipe, network, job)
    codec = Codec(job.ask, encoding_of(recipe.knowledge), job.classes, shapes(network, job.features, job.interface))
    network.to(device)
    sight = sight_of(recipe, job)
    engine, settings = _engine(recipe, overrides, job, network, device, sight)

    def answered(batch: Batch) -> NDArray[np.uint8]:
        return codec.encode(engine.answer(batch))

    def answer(message: bytes) -> memoryview:
        ids, views, inputs = unpack(message)
        batch = sight.make(ids, views) if inputs is None else _given(ids, views, inputs)
        return answered(batch).reshape(-1).data

    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "engine": label_of(settings),
        "reads": sight.reads,
        "pace_s": _pace(job, answered, int(settings.batch_size)),
    }
    return Served(facts, _SLOTS, answer, answered(_given(*asked(job))).tobytes())


def _threads(recipe: Recipe, job: Job) -> int | None:
    """CPU threads; None: as many as there are cores. On the run's machine no more than its other workers have."""
    if recipe.fleet.threads != "auto":
        return recipe.fleet.threads
    return job.threads if job.host == platform.node() else None


def _network(recipe: Recipe, job: Job, weights: Path | None) -> Network:
    """The teacher with the run's weights; nothing that the recipe says of weights is looked for."""
    bare = recipe.model_copy(update={"teacher": recipe.teacher.with_models(ModelSection.without_weights)})
    network = Networks(bare, job.interface, _ANY, live=None).teacher()
    if weights is not None:
        load_into(network, read_weights(weights), str(weights))
        return network
    content = job.weights.get("content") or _read(job.weights["path"])
    if sha256(content) != job.weights["digest"]:
        raise ModelError(f"{job.weights['path']} does not hold the weights of the run's teacher")
    load_into(network, safetensors.torch.load(content), "the run's teacher")
    return network


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(
            f"the teacher's weights can't be read from here ({path}: {error.strerror}): copy them here, and name the "
            "copy with --weights"
        ) from error


def _engine(
    recipe: Recipe, overrides: tuple[str, ...], job: Job, network: Network, device: torch.device, sight: Sight
) -> tuple[Teacher, TeacherEngineSection]:
    """What answers here: the run's engine, or the fastest one of this machine where each worker has its own."""
    if recipe.fleet.engine == "same":
        return Teacher(network, job.ask, device, recipe.teacher.engine), recipe.teacher.engine
    wanted, probe = freed(job.recipe, overrides).teacher, _given(*asked(job)).inputs
    ids = np.arange(min(_TRIED_VIEWS, job.count))
    views = probe if sight.reads == "sent" else sight.make(ids, np.zeros(len(ids), np.int64)).inputs
    work_views = views_asked(recipe) * job.count // max(recipe.fleet.workers_range[1], 1)
    return own_engine(network, job.ask, device, wanted, views, probe, work_views)


def _check_same(recipe: Recipe, network: Network, job: Job) -> None:
    """Refuse to answer for a teacher, question or engine other than the run's."""
    wanted = Identity(**job.identity)
    here = identity(recipe, job.identity["views"], network, job.ask, job.identity["teacher"]["variant"])
    if changed := here.differences(wanted):
        raise UserError("this is another teacher than the run's: " + "; ".join(changed))
    device = resolve_device(recipe.fleet.device, "fleet.device")
    if recipe.fleet.engine == "same" and not runs_here(recipe.teacher.engine, device):
        engine = recipe.teacher.engine
        raise ModelError(f"the run's engine, {engine.precision} by {engine.runtime}, can't be had on this machine")


def _given(ids: NDArray[np.int64], views: NDArray[np.int64], inputs: torch.Tensor) -> Batch:
    return Batch(ids, views, inputs, torch.zeros(len(ids), dtype=torch.int64))


def _pace(job: Job, answered: Callable[[Batch], object], group: int) -> float:
    """Seconds a view in a full group: the best of a few, the first of which compiled."""
    ids, views, inputs = asked(job)
    rows = np.arange(group) % len(ids)
    batch = _given(ids[rows], views[rows], inputs[torch.from_numpy(rows)])
    taken = []
    for _ in range(_PACE_GROUPS):
        begun = time.perf_counter()
        answered(batch)
        taken.append(time.perf_counter() - begun)
    return min(taken) / group


def work(address: str, name: str | None, overrides: tuple[str, ...] = (), weights: Path | None = None) -> int:
    """Join the run that listens at an address, and answer until it is over.

    Args:
        name: what the run started this process with; None: a person did.
        overrides, weights: as in :func:`prepare`.

    Returns:
        The exit code.

    Raises:
        StillhouseError: no run is there, or the teacher can't be loaded.
    """
    return serve(address, partial(prepare, overrides=overrides, weights=weights), name=name)


if __name__ == "__main__":
    keep_freed_memory()
    own_threads, door, own_name = sys.argv[1:]
    try:
        sys.exit(work(door, own_name, (f"fleet.threads={own_threads}",)))
    except StillhouseError as error:
        sys.exit(f"error: {error}")

"""Engines of one's own (``fleet.engine: own``): each worker's fastest one, as near to fp32 as the recipe wants.

Found like ``teacher.engine: auto``, where the worker works, and remembered there. Answers of such workers differ by
more than last bits, but by no more than ``teacher.divergence_max`` from fp32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stillhouse.foundation.errors import ModelError
from stillhouse.knowledge.ask import Ask
from stillhouse.models.network import Network
from stillhouse.models.trials import label_of
from stillhouse.recipe.engines import AUTO, TeacherEngineSection
from stillhouse.recipe.load import parse
from stillhouse.recipe.recipe import Recipe, TeacherSection
from stillhouse.teachers.engine import Teacher
from stillhouse.teachers.fidelity import as_batch, measure_fidelity
from stillhouse.teachers.trial import choose_teacher_engine

_UNSTEADY = "not steady: a view's answer depends on its place among others"


def freed(recipe: str, overrides: Sequence[str]) -> Recipe:
    """A run's recipe with overrides, in which the teacher's engine is ``auto`` but for what the overrides name.

    The number of views answered at once stays the run's.
    """
    size = parse(recipe, (), "the run's recipe").teacher.engine.batch_size
    free = ("teacher.engine=auto", f"teacher.engine.batch_size={size}")
    return parse(recipe, (*free, *overrides), "the run's recipe")


def own_engine(
    network: Network,
    ask: Ask,
    device: torch.device,
    wanted: TeacherSection,
    views: torch.Tensor,
    probe: torch.Tensor,
    work_views: int,
) -> tuple[Teacher, TeacherEngineSection]:
    """The fastest engine here that keeps to the bound, also about the probe, by which the run will judge it.

    Args:
        network: on the device.
        wanted: what is ``auto`` in its engine is free.
        views: raw, as the teacher will be asked [N, ...].
        probe: raw [P, ...].
        work_views: views that may be asked of this worker.

    Raises:
        ModelError: there is none; says what the best one lacks.
    """
    group, bound = wanted.engine.batch_size, wanted.divergence_max
    assert isinstance(group, int)
    chosen = choose_teacher_engine(network, ask, device, wanted.engine, views, bound, work_views, group).engine
    plain, fixed = TeacherEngineSection(batch_size=group), wanted.engine.model_dump().items()
    others = [plain] if plain != chosen and all(value in (AUTO, getattr(plain, key)) for key, value in fixed) else []
    lacks = []
    for engine in [chosen, *others]:
        teacher = Teacher(network, ask, device, engine)
        lack = strays(network, ask, device, teacher, probe, group, bound)
        if not lack:
            return teacher, engine
        teacher.close()
        lacks.append(f"{label_of(engine)}: {lack}")
    raise ModelError(f"fleet.engine: own: no engine here answers as the run wants it: {lacks[0]}")


def strays(
    network: Network, ask: Ask, device: torch.device, teacher: Teacher, views: torch.Tensor, group: int, bound: float
) -> str:
    """Why an engine is not to answer beside others, or "": it is further than the bound from fp32, or unsteady.

    Args:
        views: raw, to try it with [N, ...].
        group: views that it answers at once.
        bound: mean KL in nats, and relative squared error of activations.
    """
    truth = Teacher(network, ask, device, TeacherEngineSection(batch_size=group))
    try:
        views = views.to(device)
        found = measure_fidelity(teacher, views, group, truth.answer(as_batch(views)))
    finally:
        truth.close()
    return found.strays(bound) or ("" if found.steady else _UNSTEADY)

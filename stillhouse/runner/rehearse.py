"""Everything that can go wrong with the models, tried once before it costs hours.

In two parts: what needs no data but its form, before anything is decoded; one training step on real samples, after.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from stillhouse.data.batch import Batch
from stillhouse.data.open import Survey
from stillhouse.export.onnx import export_onnx
from stillhouse.foundation.errors import ModelError
from stillhouse.foundation.events import Event, Warned
from stillhouse.models.ensemble import parts
from stillhouse.models.network import Network
from stillhouse.models.placement import autocast
from stillhouse.models.weights import check_finite
from stillhouse.recipe.architectures import ModelSection
from stillhouse.recipe.engines import AUTO
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.answers import check_answers
from stillhouse.runner.blockwise.rehearsal import rehearse_replacements
from stillhouse.runner.materials import Materials
from stillhouse.runner.networks import Networks, objective_of
from stillhouse.students import losses


def rehearse_networks(
    networks: Networks, found: Survey, emit: Callable[[Event], None], *, all_kept: bool = False
) -> None:
    """Build teacher and student, compare them, look whether the answers can be had and kept, try the export.

    Args:
        all_kept: whether every answer must find room.

    Raises:
        RecipeError: the answers can't be kept as the recipe says.
        ModelError: one can't be built, does not fit the data, holds NaN, or can't be exported; or a feature term
            does not fit.
    """
    teacher, student = networks.teacher(), networks.student(0)
    for role, network in (("teacher", teacher), ("student", student)):
        check_finite(network.state_dict(), f"the {role}")
    if networks.recipe.teacher.train is None:
        for (key, section), part in zip(networks.recipe.teacher.models.items(), parts(teacher), strict=True):
            _check_head(part, section, networks.interface.classes, key)
    ask = objective_of(networks, student, teacher, 0).ask
    if ask:
        check_answers(networks, teacher, ask, found, all_kept=all_kept)
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (teacher, student)]
    made = networks.recipe.blockwise is not None or networks.recipe.search is not None  # of blocks, or by a budget
    if sizes[1] >= sizes[0] and not made:
        emit(Warned(f"the student ({sizes[1]:,} parameters) is not smaller than its teacher ({sizes[0]:,})"))
    if networks.recipe.export.onnx:
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(student, networks.interface, Path(folder) / "rehearsal.onnx")


def _check_head(teacher: Network, section: ModelSection, classes: int, key: str) -> None:
    """Refuse random answers: timm gives a pretrained model a fresh classifier where the class counts differ."""
    given = (getattr(teacher.body, "pretrained_cfg", None) or {}).get("num_classes")
    if section.weights is None and section.arch.startswith("timm:") and given not in (None, classes):
        raise ModelError(
            f"{key} {section.arch}: it was pretrained for {given} classes, the data have {classes}, so its "
            "classifier is fresh and its answers random: give teacher.train, or weights for these classes"
        )


def rehearse_step(materials: Materials) -> None:
    """Take one training step with a copy of each network that is to be trained.

    Raises:
        ModelError: the step fails, or its answer is not what training needs.
        DataError: fewer samples than a batch.
    """
    recipe = materials.recipe
    trained = [("student", materials.networks.student(0), recipe.student.train)]
    if recipe.teacher.train is not None:
        trained += [(name, make(), recipe.teacher.train) for name, make in materials.networks.teachers().items()]
    if recipe.blockwise is not None and recipe.student.model.options["mix"] == AUTO:
        rehearse_replacements(materials)
    for role, network, settings in trained:
        batch = next(materials.stream(settings, 0).batches(0, 1))
        _step(role, network, batch.part(0, len(batch) // settings.accumulate), settings, materials.device)


def _step(role: str, network: Network, batch: Batch, settings: TrainSection, device: torch.device) -> None:
    rows = len(batch)
    try:
        copied, moved = copy.deepcopy(network).to(device).train(), batch.to(device)
        precision = "fp32" if settings.engine.precision == AUTO else settings.engine.precision
        with autocast(precision, device):
            logits: object = copied(moved.inputs)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != rows:
            said = f"{list(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ModelError(f"in training mode it answers {said} to {rows} samples, not one tensor of logits")
        if not losses.is_finite(logits):
            raise ModelError("its answers to real samples are NaN or infinite")
        losses.cross_entropy(logits, moved.targets).backward()  # type: ignore[no-untyped-call]
    except ModelError as error:
        raise ModelError(f"{role} model: {error}") from error
    except Exception as error:  # anything a person's own forward may raise, out of memory included
        raise ModelError(
            f"{role} model: a training step on {rows} samples raised {type(error).__name__}: {error}"
        ) from error

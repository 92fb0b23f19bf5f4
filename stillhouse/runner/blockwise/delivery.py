"""The blockwise student as it is delivered: its norms folded into its convolutions, which changes no answer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from stillhouse.blocks.assemble import folded
from stillhouse.foundation.events import Event, Warned
from stillhouse.models.network import Network
from stillhouse.recipe.architectures import ModelSection
from stillhouse.runner.materials import Materials

_APART = 1e-3


def delivered(materials: Materials, student: Network, emit: Callable[[Event], None]) -> tuple[Network, ModelSection]:
    """The student with its norms folded, and what it is; as it was, and a warning, where that changed its answers.

    Args:
        student: trained; not changed.
    """
    section = materials.recipe.student.model
    made = folded(copy.deepcopy(student).cpu(), materials.interface).to(materials.device)
    batch = next(materials.validation()).to(materials.device)
    with torch.no_grad():
        before, after = student.eval()(batch.inputs).float(), made(batch.inputs).float()
    apart = float((before - after).abs().max() / before.abs().max())
    if not apart <= _APART:
        emit(Warned(f"the student's norms were not folded: its answers would change by {apart:.1g} of the largest"))
        return student, section
    return made, section.model_copy(update={"options": {**section.options, "folded": True}})

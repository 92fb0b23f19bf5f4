"""Teachers and students of a run: built from the recipe, or handed over from Python. Needs no data but its form."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from stillhouse.data.open import Survey
from stillhouse.data.views import view_shape
from stillhouse.foundation.seeding import subseed
from stillhouse.models.build import build, check_answer, wrap
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.taps import shapes
from stillhouse.recipe.architectures import ModelSection, Normalisation
from stillhouse.recipe.recipe import Recipe
from stillhouse.students.objective import Objective


@dataclass(frozen=True)
class Live:
    """What a Python caller hands over instead of naming it in a recipe.

    Attributes:
        teacher: a trained module; normalised inputs [B, C, H, W] -> logits [B, K].
        student: a module whose weights every student starts from, or a function that makes a fresh one.
        train, test: map-style datasets; ``test`` may be None.
    """

    teacher: nn.Module
    student: nn.Module | Callable[[], nn.Module]
    train: Any
    test: Any = None

    def digests(self) -> dict[str, str]:
        """Digest of each module's weights: a run is not to be resumed with others. A function has none."""
        modules = {"teacher.model": self.teacher, "student.model": self.student}
        return {f"{name}.live": _digest(module) for name, module in modules.items() if isinstance(module, nn.Module)}


@dataclass(frozen=True)
class Networks:
    """Makes the networks of a run; the same arguments make the same weights.

    Attributes:
        statistics: mean and deviation of the training split, for networks that know no normalisation of their own.
        live: what ``arch: live`` in the recipe stands for.
    """

    recipe: Recipe
    interface: Interface
    statistics: Normalisation
    live: Live | None

    def teacher(self) -> Network:
        """The teacher with the weights its recipe names, else freshly initialised. Not yet on the device.

        Raises:
            ModelError: it can't be built or does not fit the data.
        """
        section = self.recipe.teacher.model
        if section.arch == "live" and self.live is not None:
            return self._wrapped(copy.deepcopy(self.live.teacher), section, "teacher")
        return build(section, self.interface, self.statistics, subseed(self.recipe.seed, "teacher"), "teacher")

    def student(self, number: int) -> Network:
        """The initial student of one seed; student and control of a number start from the same weights."""
        section, seed = self.recipe.student.model, subseed(self.recipe.seed, "student", number)
        if section.arch == "live" and self.live is not None:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                given = self.live.student
                module = copy.deepcopy(given) if isinstance(given, nn.Module) else given()
            return self._wrapped(module, section, "student")
        return build(section, self.interface, self.statistics, seed, "student")

    def _wrapped(self, module: nn.Module, section: ModelSection, role: str) -> Network:
        normalise = self.statistics if section.normalise == "auto" else section.normalise
        network = wrap(module, self.interface, normalise, section.size_px, section.channels)
        check_answer(network, self.interface, role)
        return network


def interface_of(survey: Survey, recipe: Recipe) -> Interface:
    """What the data offer a model: the form of a view, and the number of classes."""
    return Interface(view_shape(survey.form.shape, recipe.data.crop_px), survey.form.image, survey.classes)


def objective_of(networks: Networks, student: Network, teacher: Network, number: int) -> Objective:
    """The recipe's objective for these two networks.

    Raises:
        ModelError: a feature term names an unknown module, or two that can't be compared.
    """
    recipe, terms = networks.recipe, networks.recipe.objective.features
    with torch.random.fork_rng():
        torch.manual_seed(subseed(recipe.seed, "adapters", number))
        return Objective(
            recipe.objective,
            recipe.student.train.label_smoothing,
            shapes(student, [term.student for term in terms], networks.interface),
            shapes(teacher, [term.teacher for term in terms], networks.interface),
            leaves_out_unknown=recipe.fleet.without_teachers == "stored_only",
        )


def _digest(module: nn.Module) -> str:
    content = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        content.update(name.encode())
        if not isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()

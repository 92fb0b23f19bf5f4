"""Teachers and students of a run: built from the recipe, or handed over from Python. Needs no data but its form."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from stillhouse.blocks.assemble import build_any, converted, forgetful
from stillhouse.data.open import Survey
from stillhouse.data.views import view_shape
from stillhouse.foundation.errors import ModelError
from stillhouse.foundation.seeding import subseed
from stillhouse.models.build import build, check_answer, wrap
from stillhouse.models.ensemble import Ensemble, Share
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.taps import shapes
from stillhouse.models.weights import load_into, read_weights
from stillhouse.recipe.architectures import BLOCKWISE, BlockwiseOptions, ModelSection, Normalisation
from stillhouse.recipe.members import class_numbers
from stillhouse.recipe.recipe import Recipe
from stillhouse.students.objective import Objective

# Members bring their own normalisation.
_AS_IT_IS = Normalisation(mean=(0.0,), std=(1.0,))


@dataclass(frozen=True)
class Live:
    """What a Python caller hands over instead of naming it in a recipe.

    Attributes:
        teachers: trained modules; normalised inputs [B, C, H, W] -> logits [B, K].
        student: a module whose weights every student starts from, or a function that makes a fresh one; None where it
            is made of the teacher's blocks.
        train, test: map-style datasets; ``test`` may be None.
    """

    teachers: Sequence[nn.Module]
    student: nn.Module | Callable[[], nn.Module] | None
    train: Any
    test: Any = None

    def digests(self) -> dict[str, str]:
        """Digest of each module's weights: a run is not to be resumed with others. A function has none."""
        several = {f"teacher.members.{number}.model": each for number, each in enumerate(self.teachers)}
        teachers = several if len(self.teachers) > 1 else {"teacher.model": self.teachers[0]}
        modules = teachers | {"student.model": self.student}
        return {f"{name}.live": _digest(module) for name, module in modules.items() if isinstance(module, nn.Module)}


@dataclass(frozen=True)
class Networks:
    """Makes the networks of a run; the same arguments make the same weights.

    Attributes:
        statistics: mean and deviation of the training split, for networks that know no normalisation of their own.
        live: what ``arch: live`` in the recipe stands for.
        start: weights that every student begins with, once a blockwise one is put together.
    """

    recipe: Recipe
    interface: Interface
    statistics: Normalisation
    live: Live | None
    start: Path | None = None

    def teacher(self) -> Network:
        """The teacher with the weights its recipe names, else freshly initialised. Not yet on the device.

        Raises:
            ModelError: it can't be built or does not fit the data.
            RecipeError: several teachers that don't answer for the data's classes.
        """
        return self.joined([make() for make in self.teachers().values()])

    def teachers(self) -> dict[str, Callable[[], Network]]:
        """Makers of each teacher, by the phase that trains it: ``teacher``, or ``teacher-0`` and on for several."""
        section, seed = self.recipe.teacher, self.recipe.seed
        if section.model is not None:
            return {"teacher": partial(self._teacher, section.model, 0, self.interface, subseed(seed, "teacher"))}
        return {
            f"teacher-{number}": partial(
                self._teacher,
                member.model,
                number,
                replace(self.interface, classes=member.width(self.interface.classes)),
                subseed(seed, "teacher", number),
            )
            for number, member in enumerate(section.members)
        }

    def joined(self, teachers: Sequence[Network]) -> Network:
        """One network of all teachers; one alone is itself."""
        members, interface = self.recipe.teacher.members, self.interface
        if not members:
            return teachers[0]
        numbers = class_numbers(members, interface.names)
        shares = [Share(m.weight, own, m.outputs == "own") for m, own in zip(members, numbers, strict=True)]
        network = wrap(Ensemble(teachers, shares, interface.classes), interface, _AS_IT_IS)
        check_answer(network, interface, "teacher")
        return network

    def _teacher(self, section: ModelSection, number: int, interface: Interface, seed: int) -> Network:
        role = "teacher" if self.recipe.teacher.model is not None else f"teacher.members.{number}"
        try:
            if section.arch == "live" and self.live is not None:
                return self._wrapped(copy.deepcopy(self.live.teachers[number]), section, interface, role)
            return build(section, interface, self.statistics, seed, role)
        except ModelError as error:
            if interface.classes == self.interface.classes or "classes" not in str(error):
                raise
            raise ModelError(
                f"{error}; {role}.outputs: own says that it has {interface.classes} outputs, one for each of its "
                f"classes: leave that out if it has one for each of the data's {self.interface.classes}"
            ) from error

    def student(self, number: int) -> Network:
        """The initial student of one seed."""
        network = self.untaught(number)
        if self.start is not None:
            load_into(network, read_weights(self.start), str(self.start))
        return network

    def untaught(self, number: int) -> Network:
        """The student of one seed before it learnt anything: what its control begins with. It is the initial student,
        unless that is made of the teacher's blocks.
        """
        section, seed = self.recipe.student.model, subseed(self.recipe.seed, "student", number)
        if section.arch == BLOCKWISE and self.recipe.blockwise is not None:
            return self._of_blocks(section, seed)
        if section.arch == "live" and self.live is not None:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                given = self.live.student
                assert given is not None
                module = copy.deepcopy(given) if isinstance(given, nn.Module) else given()
            return self._wrapped(module, section, self.interface, "student")
        return build_any(section, self.interface, self.statistics, seed, "student")

    def _of_blocks(self, section: ModelSection, seed: int) -> Network:
        """With initial weights; before a run has chosen the blocks the teacher, cut and joined again."""
        assert self.recipe.blockwise is not None and self.recipe.teacher.model is not None
        options = BlockwiseOptions.model_validate(section.options)
        if not isinstance(options.of, ModelSection):
            bare = BlockwiseOptions(of=self.recipe.teacher.model, blocks=self.recipe.blockwise.blocks)
            return converted(self.teacher(), self.interface, bare, seed)
        made = converted(self._teacher(options.of, 0, self.interface, seed), self.interface, options, seed)
        return forgetful(made, seed)

    def _wrapped(self, module: nn.Module, section: ModelSection, interface: Interface, role: str) -> Network:
        normalise = self.statistics if section.normalise == "auto" else section.normalise
        network = wrap(module, interface, normalise, section.size_px, section.channels)
        check_answer(network, interface, role)
        return network


def interface_of(survey: Survey, recipe: Recipe) -> Interface:
    """What the data offer a model: the form of a view, and the number of classes."""
    shape = view_shape(survey.form.shape, recipe.data.crop_px)
    return Interface(shape, survey.form.image, survey.classes, survey.class_names)


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

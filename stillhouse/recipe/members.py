"""One of several teachers: its model, its say, and the classes it answers for. How answers become one stands in
``models.ensemble``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stillhouse.foundation.errors import RecipeError, nearest
from stillhouse.recipe.architectures import ModelSection
from stillhouse.recipe.section import NonNegativeInt, Section


def _say(weight: float) -> float:
    if not 1e-6 <= weight <= 1e6:
        leave = ": leave a member that has nothing to say out of 'members'" if weight == 0 else ""
        raise ValueError(f"must be between 0.000001 and 1,000,000, not {weight:g}{leave}")
    return weight


Weight = Annotated[float, AfterValidator(_say), Field(json_schema_extra={"minimum": 1e-6, "maximum": 1e6})]
Classes = Annotated[tuple[NonNegativeInt | str, ...], Field(min_length=1)]


class MemberSection(Section):
    """One of several teachers, given by ``model.weights`` or trained by ``teacher.train``."""

    model: ModelSection = Field(description="architecture, options and weights, as in teacher.model")
    weight: Weight = Field(1.0, description="its say, against that of the other members that answer for a class")
    classes: Classes | None = Field(
        None, description="those it answers for: numbers, or names in quotes; default: all of the data's"
    )
    outputs: Literal["all", "own"] = Field(
        "all", description="all: one for each class of the data; own: one for each of its classes, in their order"
    )

    def width(self, classes: int) -> int:
        """How many outputs it has, where the data have so many classes."""
        return len(self.classes) if self.outputs == "own" and self.classes is not None else classes

    @model_validator(mode="after")
    def _knows_its_outputs(self) -> Self:
        if self.outputs == "own" and self.classes is None:
            raise ValueError("outputs: own needs classes: which class each output is for")
        return self


def class_numbers(members: Sequence[MemberSection], names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """For each member the numbers of the classes it answers for, in its own order; nothing where there are no members.

    Args:
        names: of all classes of the data.

    Raises:
        RecipeError: a class that the data don't have, the same twice in a member, or one that nobody answers for.
    """
    found = tuple(_numbers(member, f"teacher.members.{at}.classes", names) for at, member in enumerate(members))
    nobodys = [name for number, name in enumerate(names) if not any(number in each for each in found)]
    if members and nobodys:
        more = f" and {len(nobodys) - 3} more" if len(nobodys) > 3 else ""
        raise RecipeError(
            f"teacher.members: nobody answers for class {', '.join(nobodys[:3])}{more}: name it in a member's classes, "
            "or let one member have no 'classes', which is all"
        )
    return found


def _numbers(member: MemberSection, key: str, names: Sequence[str]) -> tuple[int, ...]:
    if member.classes is None:
        return tuple(range(len(names)))
    numbers = tuple(_number(each, key, names) for each in member.classes)
    twice = [each for at, each in enumerate(numbers) if each in numbers[:at]]
    if twice:
        raise RecipeError(f"{key}: class {twice[0]} ({names[twice[0]]}) is written twice")
    return numbers


def _number(given: int | str, key: str, names: Sequence[str]) -> int:
    if isinstance(given, str):
        if given not in names:
            near = difflib.get_close_matches(given, names, n=1)
            raise RecipeError(f"{key}: the data have no class '{given}': {nearest(given, near or names[:20])}")
        return list(names).index(given)
    if given >= len(names):
        raise RecipeError(f"{key}: there is no class {given}: the data have {len(names)}, 0 to {len(names) - 1}")
    return given

"""What a student minimises."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from stillhouse.recipe.section import Section

NON_TARGET: Final = 8.0
"""Of ``dkd``, where nothing else is said; its paper takes another for each pair of networks."""


class KDTerm(Section):
    """What the teacher's answers teach, at temperature T."""

    kind: Literal["kl", "dkd", "dist"] = Field(
        "kl",
        description="kl: T^2 KL(teacher || student) (arXiv 1503.02531); dkd: the same in two parts, the label's class "
        "and the others, apart (arXiv 2203.08679); dist: T^2 times how far both are from correlated, by sample and by "
        "class (arXiv 2205.10536)",
    )
    weight: NonNegativeFloat = 0.9
    temperature: PositiveFloat = 4.0
    non_target: PositiveFloat | None = Field(
        None, description=f"dkd: weight of the other classes' part, against the label's; default {NON_TARGET:g}"
    )

    @model_validator(mode="after")
    def _knows_its_parts(self) -> Self:
        if self.non_target is not None and self.kind != "dkd":
            raise ValueError(f"non_target: only kind dkd has one, not {self.kind}")
        return self


class FeatureTerm(Section):
    """Mean squared error between a teacher's and a student's activations, through a learned 1x1 adapter."""

    teacher: str = Field(description="name of a module of the teacher")
    student: str = Field(description="name of a module of the student")
    weight: PositiveFloat = 1.0


class ObjectiveSection(Section):
    """The student's loss: a weighted sum of its parts, each logged apart."""

    cross_entropy: NonNegativeFloat = Field(0.1, description="weight of the loss on the labels")
    kd: KDTerm | None = KDTerm()
    features: tuple[FeatureTerm, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether a teacher is asked anything."""
        return bool(self.features) or (self.kd is not None and self.kd.weight > 0)

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.cross_entropy == 0 and not self.asks:
            raise ValueError("every part of the objective has weight 0: there is nothing to learn")
        return self

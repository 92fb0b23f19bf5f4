"""How a student is searched for: what may vary, within what budget, and how trials are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Discriminator, Field, NonNegativeFloat, PositiveFloat, Tag, model_validator

from stillhouse.recipe.blockwise import BudgetSection, Share
from stillhouse.recipe.section import AbsolutePath, Name, NonNegativeInt, PositiveInt, Ratio, Section

When = Mapping[str, Any]
"""Keys of the recipe, and the value, or the list of values, that each must have."""


class NumberSection(Section):
    """A number between two; a whole one where both are."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="drawn so that doubling is as likely anywhere")
    when: When = Field({}, description="only where other keys have these values")

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: low must be above 0, not {self.low}")
        return self


class ChoiceSection(Section):
    """One of several values; a bare list says the same."""

    choices: Annotated[tuple[Any, ...], Field(min_length=1)]
    when: When = Field({}, description="only where other keys have these values")

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if any(each in self.choices[:at] for at, each in enumerate(self.choices)):
            raise ValueError("the same choice stands there twice")
        return self


class RestSection(Section):
    """One minus another key's value: nothing is searched, but weights add up to 1."""

    rest_of: str


FORMS: Final = ("(number)", "(choice)", "(rest)")
"""Tags of a range's forms, in the places that pydantic tells of mistakes."""


def _form(given: Any) -> str | None:
    """Which of the forms is meant: a tag of :data:`Range`; None for none of them."""
    if isinstance(given, RestSection) or (isinstance(given, Mapping) and "rest_of" in given):
        return "(rest)"
    if isinstance(given, ChoiceSection) or (isinstance(given, Mapping) and "choices" in given):
        return "(choice)"
    return "(number)" if isinstance(given, NumberSection | Mapping) else None


Range = Annotated[
    Annotated[NumberSection, Tag("(number)")]
    | Annotated[ChoiceSection, Tag("(choice)")]
    | Annotated[RestSection, Tag("(rest)")],
    Discriminator(
        _form,
        custom_error_type="form",
        custom_error_message="must be [a, b], {low: a, high: b}, {choices: [a, b]} or {rest_of: another key}",
    ),
    BeforeValidator(
        lambda given: {"choices": given} if isinstance(given, list | tuple) else given,
        json_schema_input_type=list[Any] | NumberSection | ChoiceSection | RestSection,
    ),
]


class SearchBudgetSection(BudgetSection):
    """The most that the student may cost, against the teacher; at least one of them."""

    peak_bytes: Share | None = Field(None, description="share of its weights' and activations' bytes, for one sample")


class TargetSection(Section):
    """A device that is not here: what a network would take there follows from its operators, one by one."""

    macs_per_s: PositiveFloat = Field(description="multiply-adds a second")
    bytes_per_s: PositiveFloat = Field(description="bytes a second that operators read and write")
    call_s: NonNegativeFloat = Field(0.0, description="seconds that a call of an operator costs")
    memory_bytes: PositiveInt | None = Field(None, description="room for weights and activations of one sample")


class SamplerSection(Section):
    """Who proposes what is tried next: any of Optuna's samplers, by its name there."""

    name: Name = "TPESampler"
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the sampler")


class SearchSection(Section):
    """The student's family and how it is taught are found by trials; the best one's members are trained to the end."""

    budget: SearchBudgetSection
    target: TargetSection | None = Field(
        None, description="device whose latency and memory are meant; default: this machine's are measured"
    )
    space: dict[str, Range] = Field(
        {},
        description="key of the recipe: [a, b, ...] or {low, high, log}; default: the graphs of a random_graph, "
        "temperature and weight, and the learning rate from a tenth of the recipe's to five times as much",
    )
    trials: PositiveInt = Field(32, description="students that are begun")
    rungs: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = Field(
        None, description="epochs after which trials are compared; default: a quarter, half and all of student.train's"
    )
    reduction: Annotated[int, Field(ge=2, le=16)] = Field(3, description="of so many trials at a rung one goes on")
    members: PositiveInt = Field(3, description="of a family that are trained at the highest rung: their mean decides")
    families: PositiveInt = Field(1, description="best families of which new members are trained to the end")
    finalists: PositiveInt = Field(
        3,
        description="so many new members of each, or of the next best families where it has fewer; the best on the "
        "validation split wins",
    )
    sampler: SamplerSection = SamplerSection()
    random: Ratio = Field(0.1, description="share of the trials that are drawn without the sampler")
    after: tuple[AbsolutePath, ...] = Field(
        (), description="folders of searches before this one: their best points are tried first"
    )
    seed: NonNegativeInt = Field(
        0, description="another one tries other points and members, on the same data and labels"
    )
    failures_max: PositiveInt = Field(8, description="trials in a row that may fail before the search gives up")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.rungs is not None and any(one >= other for one, other in zip(self.rungs, self.rungs[1:], strict=False)):
            raise ValueError(f"rungs must rise: {list(self.rungs)}")
        return self

    @model_validator(mode="after")
    def _has_what_it_refers_to(self) -> Self:
        for key, each in self.space.items():
            above = next((other for other in self.space if key.startswith(f"{other}.")), None)
            if above is not None:
                raise ValueError(f"space: '{key}' is a part of '{above}', which varies, too: leave one of them out")
            others = {each.rest_of: None} if isinstance(each, RestSection) else each.when
            for other in others:
                if other == key:
                    raise ValueError(f"space: '{key}' depends on itself")
        list(in_order(self.space))
        return self

    def epochs(self, longest: int) -> tuple[int, ...]:
        """The rungs, where the recipe trains students for so many epochs."""
        return self.rungs or tuple(sorted({max(1, longest // 4), max(1, longest // 2), longest}))


def in_order(space: Mapping[str, Range]) -> Iterator[tuple[str, Range]]:
    """Each key after those that it depends on.

    Raises:
        ValueError: two depend on each other.
    """
    left = dict(space)
    while left:
        ready = {
            key: each
            for key, each in left.items()
            if not left.keys() & ({each.rest_of} if isinstance(each, RestSection) else each.when.keys())
        }
        if not ready:
            raise ValueError(f"space: {', '.join(map(repr, sorted(left)))} depend on each other")
        yield from ready.items()
        left = {key: each for key, each in left.items() if key not in ready}

"""How a teacher's blocks are replaced: into what, by what training, within what budget."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from stillhouse.recipe.architectures import Cut
from stillhouse.recipe.section import NonNegativeInt, PositiveInt, Section
from stillhouse.recipe.train import AdamW, TrainSection

Replacement = Literal["separable", "inverted", "grouped", "low_rank", "slimmer", "shallower", "skip"]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
MEASURES = ("params", "macs", "bytes", "latency_ms")


class BudgetSection(Section):
    """The most that the student may cost; at least one of them."""

    params: Share | None = Field(None, description="share of the teacher's parameters")
    macs: Share | None = Field(None, description="share of its multiply-adds")
    bytes: Share | None = Field(None, description="share of its weights' bytes")
    latency_ms: PositiveFloat | None = Field(
        None, description="time of one sample, where the run computes; on the CPU with one thread"
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        measures = list(type(self).model_fields)
        if all(getattr(self, measure) is None for measure in measures):
            shares = ", ".join(each for each in measures if each != "latency_ms")
            raise ValueError(f"give a budget: one of {shares} (shares of the teacher's) or latency_ms")
        return self


def _train() -> TrainSection:
    adamw = AdamW(kind="adamw", learning_rate=3e-3, weight_decay=0.0)
    return TrainSection(epochs=4, optimizer=adamw, warmup_epochs=0.25)


class BlockwiseSection(Section):
    """Every block of the teacher is given replacements, trained on the teacher's own activations; the best mix of them
    within the budget, put together, is the student.
    """

    blocks: Cut = Field("block", description="layer, block or stage; or names of modules that end a block each")
    library: Annotated[tuple[Replacement, ...], Field(min_length=1)] = Field(
        ("separable", "inverted", "grouped", "low_rank", "slimmer", "shallower", "skip"),
        description="kinds of replacements; a block may always be kept, and is where it costs next to nothing",
    )
    budget: BudgetSection
    train: TrainSection = Field(default_factory=_train, description="of each replacement")
    memory_max_mb: PositiveInt = Field(
        4096,
        description="for training replacements, by an estimate; beyond it they are trained in groups. Activations that "
        "wait between several workers come on top",
    )
    cosine: NonNegativeFloat = Field(0.0, description="weight of 1 - cosine, beside the normalised squared error")
    score_samples: PositiveInt = Field(2048, description="of the validation split, by which replacements are judged")
    candidates: PositiveInt = Field(4, description="best mixes that are put together and compared")
    calibrate_epochs: NonNegativeInt = Field(
        2, description="of training each block on what the blocks before it give once they are replaced"
    )

    @model_validator(mode="after")
    def _trains_blocks(self) -> Self:
        if self.train.label_smoothing:
            raise ValueError("train.label_smoothing: a block learns no labels")
        if len(set(self.library)) < len(self.library):
            raise ValueError("library: a kind is named twice")
        return self

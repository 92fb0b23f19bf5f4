"""One training: its length, its optimiser, its engine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from stillhouse.recipe.engines import StepEngine, StepEngineSection
from stillhouse.recipe.section import Fraction, PositiveInt, Ratio, Section


class SGD(Section):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"]
    learning_rate: PositiveFloat = 0.1
    momentum: Ratio = 0.9
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 5e-4


class AdamW(Section):
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    kind: Literal["adamw"]
    learning_rate: PositiveFloat = 1e-3
    betas: tuple[Ratio, Ratio] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.05


Optimizer = Annotated[SGD | AdamW, Field(discriminator="kind")]


class TrainSection(Section):
    """One training: of a teacher, a student, a control. The learning rate warms up, then follows a cosine to zero."""

    epochs: PositiveInt = 10
    batch_size: PositiveInt = Field(128, description="samples a step of the optimiser, over all micro-batches")
    accumulate: PositiveInt = Field(1, description="micro-batches a step; must divide batch_size")
    optimizer: Optimizer = SGD(kind="sgd")
    warmup_epochs: NonNegativeFloat = 1.0
    clip_norm: PositiveFloat | None = Field(None, description="largest L2 norm of all gradients together")
    label_smoothing: Ratio = 0.0
    ema_decay: Fraction | None = Field(
        None, description="keep an exponential moving average of the weights, and use it"
    )
    engine: StepEngine = StepEngineSection()
    loss_tolerance: PositiveFloat = Field(
        0.02, description="an automatic engine's first losses stay within this share of fp32's"
    )
    loss_ratio_max: PositiveFloat = Field(50.0, description="stop when the loss exceeds this times its first value")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} is more than epochs {self.epochs}")
        return self

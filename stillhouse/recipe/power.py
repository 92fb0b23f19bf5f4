"""How much power the machine draws, for an estimate where no counter of energy can be read."""

from __future__ import annotations

from typing import Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from stillhouse.foundation.cpu_time import cores
from stillhouse.foundation.energy import PowerModel
from stillhouse.recipe.section import Section


class PowerSection(Section):
    """Watts of the machine without its GPUs, as a wattmeter shows them, or its data sheets."""

    idle_w: NonNegativeFloat = Field(description="watts when the machine rests, without its GPUs")
    busy_w: PositiveFloat = Field(description="watts when all cores that the run may use are busy, without its GPUs")

    @property
    def model(self) -> PowerModel:
        """The same, of the cores of this process."""
        return PowerModel(self.idle_w, self.busy_w, cores())

    @model_validator(mode="after")
    def _work_costs(self) -> Self:
        if self.busy_w < self.idle_w:
            raise ValueError(f"busy_w is {self.busy_w:g}, less than idle_w, {self.idle_w:g}: were they exchanged?")
        return self

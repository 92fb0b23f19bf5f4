"""Who works outside the run's process: teachers (how many, where, what if none is left), several students, and
workers that train blocks.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeFloat, model_validator

from stillhouse.recipe.section import Device, NonNegativeInt, PositiveInt, Section


def _whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _number_or_range(value: Any, whom: str, least: int) -> Any:
    """Check a number of workers or students, at least ``least`` (0 or 1), or [min, max] of them.

    Raises:
        ValueError: says what is allowed.
    """
    none = "0: no fleet" if least == 0 else "at least 1"
    if isinstance(value, list | tuple):
        if len(value) != 2 or not all(map(_whole, value)):
            raise ValueError(f"must be one number of {whom} ({none}), or [min, max], not {list(value)}")
        low, high = value
        if low < 1:
            instead = "; for no fleet at all write 0" if least == 0 else ""
            raise ValueError(f"[{low}, {high}]: min is at least 1{instead}")
        if high < low:
            raise ValueError(f"[{low}, {high}]: max is less than min; did you mean [{high}, {low}]?")
    elif not _whole(value) or value < least:
        raise ValueError(f"must be one number of {whom} ({none}), or [min, max], not {value!r}")
    return value


Students = Annotated[
    PositiveInt | tuple[PositiveInt, PositiveInt], BeforeValidator(partial(_number_or_range, whom="students", least=1))
]
Workers = Annotated[
    NonNegativeInt | tuple[PositiveInt, PositiveInt],
    BeforeValidator(partial(_number_or_range, whom="workers", least=0)),
]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class FleetSection(Section):
    """Teachers and students in processes of their own, which may come, go and die while the student trains."""

    workers: Workers = Field(
        0,
        description="number of workers, or [min, max] to let it follow what the students need; 0: no fleet, the "
        "teacher answers in the student's process",
    )
    backend: Literal["local", "ray"] = Field(
        "local", description="local: processes on this machine; ray: actors on a Ray cluster; needs the extra 'ray'"
    )
    device: Device = Field("auto", description="of each worker; auto: the best where it runs")
    engine: Literal["same", "own"] = Field(
        "same",
        description="same: every worker answers by teacher.engine, results don't depend on who answered what; own: "
        "each by the fastest engine that it finds within teacher.divergence_max of fp32; results depend on that, by as "
        "much",
    )
    threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="CPU threads of each worker; auto: the cores of its machine, shared evenly; on Ray 1"
    )
    window_mb: PositiveInt = Field(
        256,
        description="memory for answers that are asked for and not yet used, in MB (10^6 bytes), of all students; and "
        "as much again for pixels of batches in line",
    )
    low: Share = Field(0.25, description="share of the window: with fewer answers ready, a waiting student gets help")
    high: Share = Field(
        0.75, description="share of the window: with more answers ready for a while, a surplus worker is released"
    )
    patience_s: NonNegativeFloat = Field(30.0, description="seconds that a student waits when no worker is left")
    without_teachers: Literal["inline", "stored_only", "hard_labels", "stop"] = Field(
        "inline",
        description="after that; inline: the teacher answers in the student's process; hard_labels: views "
        "that the store does not hold are learnt from their labels; stored_only: they are left out; stop: the run ends "
        "and can be resumed. Only inline and stop leave the student what it would have been",
    )

    students: Students = Field(
        1,
        description="number of processes that train the student together, or [min, max] to go on with fewer when one "
        "is lost; each takes a share of student.train.accumulate's micro-batches, results don't depend on it",
    )

    block_workers: PositiveInt = Field(
        1,
        description="number of processes that train a blockwise student's blocks, with fewer when one is lost; results "
        "don't depend on it",
    )

    trial_workers: PositiveInt = Field(
        1,
        description="number of processes that train a search's trials; with several, what is tried next depends on who "
        "was done first",
    )

    @property
    def students_range(self) -> tuple[int, int]:
        """The fewest and the most students."""
        return (self.students, self.students) if isinstance(self.students, int) else self.students

    @property
    def workers_range(self) -> tuple[int, int]:
        """The fewest and the most workers; (0, 0) where there is no fleet."""
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}: for example 0.25 and 0.75")
        return self

"""Where processes that work together live (students, or workers that train blocks): on this machine, or on Ray."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.group import Gather, Gathered
from stillhouse.runner.student import attend
from stillhouse.runtime.local.crew import LocalCrew, StandingCrew
from stillhouse.runtime.local.door import MEETING
from stillhouse.runtime.local.line import Line


class Kind(NamedTuple):
    """What is started.

    Attributes:
        module: that such a process runs.
        name: what one of them is called.
        key: of the recipe that asks for several.
        attend: what it does with its line; its exit code.
    """

    module: str
    name: str
    key: str
    attend: Callable[[Line], int]

    @property
    def command(self) -> tuple[str, ...]:
        """What starts one; without the folder that a person happens to stand in (-P)."""
        return (sys.executable, "-P", "-m", self.module)


STUDENTS = Kind("stillhouse.runner.student", "student", "fleet.students", attend)


@contextlib.contextmanager
def gathering(
    recipe: Recipe,
    warn: Callable[[str], None],
    check: Callable[[], None],
    kind: Kind = STUDENTS,
    fewest_most: tuple[int, int] | None = None,
) -> Iterator[Gather]:
    """What starts processes where a recipe says, as long as it lasts.

    Args:
        warn: told what a person should know.
        check: called while they are waited for; ends that by what it raises.
        fewest_most: of them; None: students as the recipe has them.
    """
    if recipe.fleet.backend == "ray":
        with _on_ray(recipe, warn, check, kind, fewest_most or recipe.fleet.students_range) as gather:
            yield gather
    else:
        yield lambda wanted: _here(wanted, warn, kind)


@contextlib.contextmanager
def standing(
    recipe: Recipe, warn: Callable[[str], None], check: Callable[[], None], kind: Kind
) -> Iterator[StandingCrew]:
    """A crew whose processes come and go by themselves, where a recipe says; who has it closes it.

    Args:
        warn: told what a person should know.
        check: called while a cluster is waited for; ends that by what it raises.
    """
    if recipe.fleet.backend == "local":
        yield LocalCrew(kind.command, (), warn)
        return
    with _cluster(recipe, check) as resources:
        from stillhouse.runtime.ray_crew import RayCrew

        yield RayCrew(kind.attend, resources, warn)


def _here(wanted: int, warn: Callable[[str], None], kind: Kind) -> Gathered:
    names = [f"{kind.name}-{number + 1}" for number in range(wanted)]
    crew = LocalCrew(kind.command, names, warn)
    return Gathered(crew, names, str(crew.folder / MEETING))


@contextlib.contextmanager
def _on_ray(
    recipe: Recipe, warn: Callable[[str], None], check: Callable[[], None], kind: Kind, fewest_most: tuple[int, int]
) -> Iterator[Gather]:
    with _cluster(recipe, check) as resources:
        try:
            from stillhouse.runtime.ray_group import RayGroup
        except ImportError as error:
            raise RecipeError(
                f"{kind.key} on Ray needs Ray Train, and that can't be loaded ({error}): pip install 'stillhouse[ray]'"
            ) from error
        group = RayGroup(*fewest_most, resources, kind.attend, warn)
        try:

            def gather(wanted: int) -> Gathered:
                return Gathered(*group.gather(check), None)  # how many, Ray says

            yield gather
        finally:
            group.close()


@contextlib.contextmanager
def _cluster(recipe: Recipe, check: Callable[[], None]) -> Iterator[dict[str, float]]:
    """The connection to a cluster; what each process is to have there."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # read once, when Ray is loaded
    from stillhouse.runtime.ray_backend import connect

    disconnect = connect(check)
    gpu = recipe.compute.device.startswith("cuda")
    try:
        yield {"CPU": float(recipe.compute.threads), **({"GPU": 1.0} if gpu else {})}
    finally:
        if not recipe.fleet.workers_range[1]:  # else teachers may use the connection longer than the students
            disconnect()

"""Where the students of a training live: processes of this machine, or of a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.group import Gather, Gathered
from stillhouse.runner.student import attend
from stillhouse.runtime.local.crew import LocalCrew
from stillhouse.runtime.local.door import MEETING

# Without the folder that a person happens to stand in (-P).
STUDENT = (sys.executable, "-P", "-m", "stillhouse.runner.student")


@contextlib.contextmanager
def gathering(recipe: Recipe, warn: Callable[[str], None], check: Callable[[], None]) -> Iterator[Gather]:
    """What starts students where a recipe says, as long as it lasts.

    Args:
        warn: told what a person should know.
        check: called while students are waited for; ends that by what it raises.
    """
    if recipe.fleet.backend == "ray":
        with _on_ray(recipe, warn, check) as gather:
            yield gather
    else:
        yield lambda wanted: _here(wanted, warn)


def _here(wanted: int, warn: Callable[[str], None]) -> Gathered:
    names = [f"student-{number + 1}" for number in range(wanted)]
    crew = LocalCrew(STUDENT, names, warn)
    return Gathered(crew, names, str(crew.folder / MEETING))


@contextlib.contextmanager
def _on_ray(recipe: Recipe, warn: Callable[[str], None], check: Callable[[], None]) -> Iterator[Gather]:
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # read once, when Ray is loaded
    from stillhouse.runtime.ray_backend import connect

    try:
        from stillhouse.runtime.ray_group import RayGroup
    except ImportError as error:
        raise RecipeError(
            f"fleet.students on Ray needs Ray Train, and that can't be loaded ({error}): pip install 'stillhouse[ray]'"
        ) from error
    disconnect = connect(check)
    least, most = recipe.fleet.students_range
    gpu = recipe.compute.device.startswith("cuda")
    resources = {"CPU": float(recipe.compute.threads), **({"GPU": 1.0} if gpu else {})}
    try:
        group = RayGroup(least, most, resources, attend, warn)
        try:

            def gather(wanted: int) -> Gathered:
                return Gathered(*group.gather(check), None)  # how many, Ray says

            yield gather
        finally:
            group.close()
    finally:
        if not recipe.fleet.workers_range[1]:  # else teachers may use the connection longer than the students
            disconnect()

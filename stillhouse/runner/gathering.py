"""Where the students of a group live: processes of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable

from stillhouse.recipe.fleet import FleetSection
from stillhouse.runner.group import Gather, Gathered
from stillhouse.runtime.local.crew import LocalCrew
from stillhouse.runtime.local.door import MEETING

_COMMAND = (sys.executable, "-m", "stillhouse.runner.student")


def gatherer(section: FleetSection, warn: Callable[[str], None]) -> Gather:
    """Starts students where a recipe says."""

    def gather(wanted: int) -> Gathered:
        names = [f"student-{number + 1}" for number in range(wanted)]
        crew = LocalCrew(_COMMAND, names, warn)
        return Gathered(crew, names, str(crew.folder / MEETING))

    return gather

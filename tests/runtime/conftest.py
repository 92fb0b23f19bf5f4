"""A stage for each backend, and a run's front door with workers that are started by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from .acting import Role
from .house import House, opened
from .loans import Begin
from .stages import COMMAND, ON_RAY, STAGES


@pytest.fixture(params=[*STAGES, *(pytest.param(name, marks=pytest.mark.ray) for name in ON_RAY)])
def begin(request: pytest.FixtureRequest) -> Iterator[Begin]:
    """Opens a stage for a :class:`Role`; closed at the end."""
    stage = (STAGES | ON_RAY)[request.param]
    with ExitStack() as opened:
        yield lambda **role: opened.enter_context(stage(Role(**role)))


@pytest.fixture
def house() -> Iterator[House]:
    with opened() as one:
        yield one


@pytest.fixture
def by_hand() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts workers as a person does in another shell."""
    started: list[subprocess.Popen[str]] = []

    def start(address: str, *name: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen([*COMMAND, address, *name], stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()

"""What the run's side of workers that train blocks says and decides, without any worker."""

from __future__ import annotations

import pytest

from stillhouse.recipe.load import validate
from stillhouse.runner.blockwise.crew import _warn_of_crowds

from .small_blocks import SMALL


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "advice"),
    [(8, 4, 2, None), (8, 4, 4, "compute.threads: 2"), (4, 8, 1, "--block-workers 4"), (1, 2, 1, None)],
)
def test_who_asks_for_too_many_threads_is_told(
    cores: int, workers: int, threads: int, advice: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads than cores are warned of, with what fits; a machine of one core has no choice."""
    monkeypatch.setattr("stillhouse.runner.blockwise.crew.cores", lambda: cores)
    compute, fleet = {"device": "cpu", "threads": threads}, {"block_workers": workers}
    said: list[str] = []
    _warn_of_crowds(validate({**SMALL, "compute": compute, "fleet": fleet}), said.append)
    assert len(said) == (advice is not None)
    assert advice is None or f"{advice} is" in said[0]

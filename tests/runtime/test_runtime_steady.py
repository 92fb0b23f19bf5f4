"""Fleets under way on a virtual clock: what the dispatcher makes of rates."""

from __future__ import annotations

import pytest

from stillhouse.runtime.simulated.steady import steady


def test_too_few_workers_are_all_busy() -> None:
    """Two workers of 100 views a second for a student of 1000: it has a fifth of its rate, and nobody idles."""
    found = steady([100.0, 100.0], demand=1000.0, item=16, window=256, seed=0)
    assert found.throughput == pytest.approx(200.0, rel=0.03)
    assert found.starved_share == pytest.approx(0.8, abs=0.01) and found.idle_share < 0.02


def test_more_than_enough() -> None:
    """Twice what the student takes: it never waits, and half of the workers' time is left."""
    found = steady([500.0] * 4, demand=1000.0, item=16, window=256, seed=0)
    assert found.throughput == pytest.approx(1000.0, rel=0.01)
    assert found.starved_share < 0.01 and found.idle_share == pytest.approx(0.5, abs=0.03)


def test_a_window_too_small_costs_throughput() -> None:
    """Arithmetic knows no window: with one question at a time four workers give what one does."""
    rates = [100.0] * 4
    held = steady(rates, demand=1000.0, item=16, window=16, seed=0).throughput
    free = steady(rates, demand=1000.0, item=16, window=512, seed=0).throughput
    assert held < 110.0 and free > 380.0


def test_the_same_seed_gives_the_same() -> None:
    """What varies follows from the seed alone."""
    assert steady([300.0, 50.0], 400.0, 8, 64, seed=3) == steady([300.0, 50.0], 400.0, 8, 64, seed=3)

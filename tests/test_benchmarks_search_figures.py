"""The statistics behind the search benchmark's ratios."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.search_figures import again, best_of, different, half, interval, reached, times_fewer, times_more

VALUES = st.lists(st.integers(0, 100).map(lambda whole: whole / 100), min_size=1, max_size=6)


@given(VALUES, st.data())
def test_the_best_of_so_many_is_the_mean_over_all_orders(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    orders = itertools.permutations(values)
    assert best_of(np.array(values), count) == pytest.approx(statistics.fmean(max(each[:count]) for each in orders))


def test_a_network_that_is_there_twice_counts_once() -> None:
    rows = [{"accuracy": each} for each in ([0.1, 0.2], [0.1, 0.3], [0.1, 0.2])]
    assert different(rows) == rows[:2]


def test_a_search_has_reached_what_it_is_as_good_as() -> None:
    curve = [(2.0, 0.3), (5.0, 0.5)]
    assert [reached(curve, target) for target in (0.2, 0.3, 0.4, 0.5, 0.6)] == [2.0, 2.0, 5.0, 5.0, math.inf]


def test_so_many_fewer_by_the_median_search_and_none_where_half_never_came_there() -> None:
    end = np.array([0.5] * 10)
    quick, slow, never = [(2.0, 0.5)], [(5.0, 0.6)], [(1.0, 0.4)]
    assert times_fewer(end, [quick, slow, never], 10) == 2
    assert times_fewer(end, [quick, slow, slow], 10) == 2
    assert times_fewer(end, [quick, quick, never], 10) == 5
    assert times_fewer(end, [quick, never, never], 10) == 0
    assert times_fewer(end, [slow, never], 10) == 0


def test_so_many_times_more_until_as_good_as_theirs_at_their_end() -> None:
    ours = [[(1.0, 0.4), (2.0, 0.7)], [(4.0, 0.7)], [(3.0, 0.7)]]
    theirs = [[(3.0, 0.3), (9.0, 0.6)], [(6.0, 0.6)], [(12.0, 0.8)]]
    assert times_more(ours, theirs) == (3, 3, 9)
    assert times_more([[(1.0, 0.5)]] * 2, theirs)[0] == 0


def test_the_interval_holds_the_figure_and_is_the_same_again() -> None:
    values = np.random.default_rng(0).normal(size=200)
    low, high = interval(lambda some: float(np.mean(some)), half(values, 1))
    assert low <= np.mean(values) <= high
    assert (low, high) == interval(lambda some: float(np.mean(some)), half(values, 1))


def test_halves_have_no_network_twice_and_at_least_as_many_as_are_looked_for() -> None:
    values, chance = np.arange(11.0), np.random.default_rng(0)
    assert [len(set(half(values, least)(chance))) for least in (1, 8)] == [5, 8]
    searches = [[(1.0, 0.1)], [(2.0, 0.2)]]
    assert all(each in searches for each in again(searches)(chance))
    assert len(again(searches)(chance)) == 2

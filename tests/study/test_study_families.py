"""Which family promises the best member."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.study.families import promises

VALUES = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=6)


@given(VALUES)
def test_of_one_draw_the_mean_is_expected(members: list[list[float]]) -> None:
    """Nothing is chosen then."""
    assert promises(members, [1] * len(members)) == pytest.approx([float(np.mean(each)) for each in members])


@given(VALUES, st.integers(2, 8))
def test_more_draws_promise_more(members: list[list[float]], draws: int) -> None:
    """And never less than the mean."""
    few, many = (promises(members, [count] * len(members)) for count in (draws, draws + 1))
    assert all(one <= other for one, other in zip(few, many, strict=True))


def test_a_spread_counts_where_members_are_drawn() -> None:
    """Of two families that are as good in the mean the one that varies; a family of one network does not."""
    members = [[0.80, 0.80, 0.80], [0.76, 0.80, 0.84]]
    even, wide = promises(members, [3, 3])
    assert even < wide
    assert promises(members, [3, 1])[1] == pytest.approx(0.80)


def test_it_is_what_comes_out() -> None:
    """Against draws: families whose members are normal, of known mean and spread."""
    chance = np.random.default_rng(0)
    spread, several = 0.03, 200
    means = chance.normal(0.7, 0.02, several)
    seen = chance.normal(means[:, None], spread, (several, 3))
    best = chance.normal(seen.mean(1)[:, None, None], spread, (several, 4000, 4)).max(2).mean(1)
    told = promises(seen.tolist(), [4] * several)
    assert abs(np.mean(told - best)) < 0.002

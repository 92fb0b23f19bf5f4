"""What a value at a low rung foretells of the highest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.study.foretold import foretold

STANDINGS = st.lists(st.lists(st.floats(0, 1), max_size=4), max_size=20)


@given(STANDINGS)
def test_who_is_ahead_stays_ahead(values: list[list[float]]) -> None:
    """Of two that stand at the same rung the better is never foretold less; at the highest, values are themselves."""
    found = foretold(values)
    highest = max(map(len, values), default=0)
    assert [each is None for each in found] == [not each for each in values]
    for each, value in zip(values, found, strict=True):
        if each and len(each) == highest:
            assert value == each[-1]
        for other, theirs in zip(values, found, strict=True):
            if len(each) == len(other) > 0 and each[-1] > other[-1]:
                assert value is not None and theirs is not None and value >= theirs - 1e-9


def test_a_gain_that_all_have_is_foretold() -> None:
    """Rungs that differ by a constant are told apart by it alone."""
    draw = np.random.default_rng(0)
    first = [float(each) for each in draw.uniform(0.2, 0.5, 12)]
    values = [[x, x + 0.1, x + 0.3] if number < 5 else [x] for number, x in enumerate(first)]
    assert foretold(values) == pytest.approx([x + 0.3 for x in first])


def test_a_rung_that_says_nothing_is_forgotten() -> None:
    """The more trials went on from it, the less of a lead there is left."""
    draw = np.random.default_rng(0)
    left = list[float]()
    for count in (4, 16, 64):
        leads = list[float]()
        for _ in range(20):
            low, high = foretold([*draw.uniform(size=(count, 2)).tolist(), [0.0], [1.0]])[-2:]
            assert low is not None and high is not None and high >= low
            leads.append(high - low)
        left.append(sum(leads) / 20)
    assert 0.75 > left[0] > 0.4 > left[1] > 0.2 > left[2]


def test_one_that_went_on_gives_its_gain_to_all() -> None:
    """A line through one point keeps all of a lead."""
    assert foretold([[0.2, 0.5], [0.1]]) == pytest.approx([0.5, 0.4])
    assert foretold([[0.2], [0.1], []]) == [0.2, 0.1, None] and foretold([]) == []

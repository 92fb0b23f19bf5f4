"""Replacements in groups that find room in memory."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stillhouse.recipe.train import SGD, AdamW, TrainSection
from stillhouse.runner.blockwise.groups import groups, training_bytes


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 200))
def test_groups_hold_everything_in_order_and_no_more_than_fits(sizes: list[int], room: int) -> None:
    """Every replacement is in one group, in order; no group is larger than there is room, but one alone."""
    told = {(f"block{number}", "separable"): size for number, size in enumerate(sizes)}
    found = groups(told, room)
    assert [key for group in found for key in group] == list(told)
    for group in found:
        assert len(group) == 1 or sum(told[key] for key in group) <= room
    for one, other in pairwise(found):
        assert sum(told[key] for key in one) + told[other[0]] > room


def test_an_optimiser_counts() -> None:
    """SGD keeps weights, gradients and momentum, AdamW two moments; an average is one copy more."""
    module = nn.Linear(10, 10, bias=False)
    assert training_bytes(module, TrainSection(optimizer=SGD(kind="sgd"))) == 3 * 400
    assert training_bytes(module, TrainSection(optimizer=AdamW(kind="adamw"), ema_decay=0.9)) == 5 * 400

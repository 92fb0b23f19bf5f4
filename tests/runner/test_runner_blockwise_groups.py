"""Replacements in groups that find room in memory."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stillhouse.blocks.partition import partition
from stillhouse.recipe.train import SGD, AdamW, TrainSection
from stillhouse.runner.blockwise.groups import Need, groups, need_of

NEEDS = st.lists(st.builds(Need, st.integers(1, 100), st.integers(0, 50)), min_size=1, max_size=30)


def together(needs: list[Need]) -> int:
    """What all keep, and the largest step of one."""
    return sum(each.kept for each in needs) + max(each.step for each in needs)


@given(NEEDS, st.integers(1, 200))
def test_groups_hold_everything_in_order_and_no_more_than_fits(needs: list[Need], room: int) -> None:
    """Every replacement is in one group, in order; no group is larger than there is room, but one alone."""
    told = {(f"block{number}", "separable"): need for number, need in enumerate(needs)}
    found = groups(told, room)
    assert [key for group in found for key in group] == list(told)
    for group in found:
        assert len(group) == 1 or together([told[key] for key in group]) <= room
    for one, other in pairwise(found):
        assert together([told[key] for key in (*one, other[0])]) > room


@pytest.mark.parametrize(
    ("settings", "copies"),
    [
        (TrainSection(optimizer=SGD(kind="sgd"), batch_size=8), 3),
        (TrainSection(optimizer=AdamW(kind="adamw"), ema_decay=0.9, batch_size=8), 5),
    ],
)
def test_a_training_needs_its_optimiser_and_a_step_its_activations(settings: TrainSection, copies: int) -> None:
    """SGD keeps weights, gradients and momentum, AdamW two moments; an average is one copy more. A step has both ends
    of the block for a batch, and what a micro-batch saves: here what is between two convolutions.
    """
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    (block, *_) = partition(network, torch.zeros(2, 3, 8, 8), "layer")
    module = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.Sigmoid(), nn.Conv2d(6, 4, 1, bias=False))
    need = need_of(module, block, settings)
    assert need.kept == copies * 4 * (3 * 6 + 6 * 4)
    assert need.step == 4 * 8 * 8 * (8 * (3 + 4) + 8 * 6)
    half = need_of(module, block, settings.model_copy(update={"accumulate": 2}))
    assert half.step == 4 * 8 * 8 * (8 * (3 + 4) + 4 * 6)

"""Replacements in groups that find room in memory."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile

from stillhouse.blocks.library.offers import offers
from stillhouse.blocks.objective import BlockObjective
from stillhouse.blocks.partition import Block, partition
from stillhouse.blocks.train import Line, Station
from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.knowledge.source import NoKnowledge
from stillhouse.recipe.train import SGD, AdamW, TrainSection
from stillhouse.runner.blockwise.groups import Need, groups, need_of
from stillhouse.students.fit import FitContext, Loop

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
    """SGD keeps weights, gradients and momentum, AdamW two moments; an average is one copy more. A larger micro-batch
    takes as much more as there is between its convolutions, and as it has outputs; a larger batch what its ends are.
    """
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    (block, *_) = partition(network, torch.zeros(2, 3, 8, 8), "layer")
    module = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.Sigmoid(), nn.Conv2d(6, 4, 1, bias=False))
    need = need_of(module, block, settings)
    assert need.kept == copies * 4 * (3 * 6 + 6 * 4)
    half = need_of(module, block, settings.model_copy(update={"accumulate": 2}))
    assert need.step - half.step == 4 * 4 * 8 * 8 * (2 * 6 + 2 * 4)
    double = need_of(module, block, settings.model_copy(update={"batch_size": 16, "accumulate": 2}))
    assert double.step - need.step == 8 * 4 * 8 * 8 * (3 + 2 * 4)


def test_a_step_takes_about_what_is_told() -> None:
    """What the allocator gives at once for a step is at most what was estimated, and a third of it at least."""
    network = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
    ).eval()
    (block, *_) = partition(network, torch.zeros(2, 16, 16, 16), "layer")
    settings = TrainSection(optimizer=AdamW(kind="adamw"), batch_size=32, epochs=1, warmup_epochs=0)
    for each in offers(block, 0, ("separable", "low_rank", "grouped")):
        told = need_of(each.module, block, settings)
        taken = _taken(each.module, block, settings)
        assert told.step / 3 < taken < 1.1 * (told.step + told.kept / 4), (each.name, told, taken)


def _taken(module: nn.Module, block: Block, settings: TrainSection) -> int:
    """Bytes that the allocator gave at most at one time of a step, with what goes in."""
    pace = cast(Stream, type("Pace", (), {"steps_per_epoch": 10, "batch_size": settings.batch_size})())
    context = FitContext("x", 0, torch.device("cpu"), emit=lambda event: None)
    loop = Loop(module.train(), NoKnowledge(), pace, BlockObjective(), settings, context)
    line = Line([Station(block, {"a": loop})])
    inputs, ids = torch.randn(settings.batch_size, *block.in_shape), np.arange(settings.batch_size)
    batch = Batch(ids, 0 * ids, inputs, torch.zeros(settings.batch_size, dtype=torch.int64))
    line.take(0, batch, inputs)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        line.take(1, batch, inputs)
    held = most = inputs.nbytes
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda each: each.start_ns()):  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most

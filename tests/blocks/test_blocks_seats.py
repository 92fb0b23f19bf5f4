"""What each worker of a plan does."""

from __future__ import annotations

import json
from dataclasses import asdict
from random import Random

import pytest

from stillhouse.blocks.schedule import BlockTimes, Plan, Share, plan
from stillhouse.blocks.seats import Seat, seats


def block(*train_s: float) -> BlockTimes:
    return BlockTimes(0.1, train_s, 0, 0)


def planned(relayed: bool, *shares: tuple[int, tuple[tuple[int, int], ...], int | None, int]) -> Plan:
    return Plan(tuple(Share(*each, 1.0) for each in shares), relayed, 1.0, 1.0)


def test_activations_go_from_share_to_share() -> None:
    """Each worker has one source in the share before its own, who knows of it; the first ones make batches."""
    own = seats(planned(True, (0, ((0, 0),), 1, 2), (1, ((1, 0),), 2, 3), (2, ((2, 0),), None, 1)))
    assert [each.source for each in own] == [None, None, 0, 1, 0, 2]
    assert [each.targets for each in own] == [(2, 4), (3,), (5,), (), (), ()]
    assert [each.begin for each in own] == [0, 0, 1, 1, 1, 2]
    assert [each.mates for each in own] == [(0, 1)] * 2 + [(2, 3, 4)] * 3 + [(5,)]


def test_who_has_some_alternatives_hands_on_what_goes_into_the_block() -> None:
    """Where two have to do with one block, the first hands on its input, and both run the teacher's block."""
    one, two = seats(planned(True, (0, ((0, 0), (1, 1)), 1, 1), (1, ((1, 0), (2, 0)), None, 1)))
    assert (one.first, one.last, one.hands_on) == (0, 1, 1) and (two.first, two.last, two.begin) == (1, 2, 1)
    one, two = seats(planned(True, (0, ((0, 0),), 2, 1), (2, ((2, 0),), None, 1)))
    assert (one.last, one.hands_on) == (1, 2)  # nobody trains the block between; the first runs it


def test_a_prefix_of_ones_own_needs_nobody() -> None:
    """Where nothing is handed on everybody makes batches, and computes the teacher from the first block on."""
    own = seats(planned(False, (0, ((0, 0),), 1, 1), (1, ((1, 0),), None, 1)))
    assert [(each.source, each.begin, each.targets) for each in own] == [(None, 0, ()), (None, 0, ())]


@pytest.mark.parametrize("seed", range(20))
def test_everything_is_trained_once(seed: int) -> None:
    """Whatever the plan, each replacement is somebody's, nobody's twice, and told as it was after a journey as JSON."""
    dice = Random(seed)
    blocks = [block(*(dice.random() for _ in range(dice.randint(0, 4)))) for _ in range(dice.randint(1, 6))]
    found = plan(blocks, dice.randint(1, 6), dice.choice([1e3, 1e12]), parts_max=1)
    own = seats(found)
    trained = sorted(each for seat in own for each in seat.own)
    assert trained == [(at, which) for at, each in enumerate(blocks) for which in range(len(each.train_s))]
    assert [Seat.from_json(json.loads(json.dumps(asdict(each)))) for each in own] == own

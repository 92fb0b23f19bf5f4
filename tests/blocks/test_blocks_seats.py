"""What each worker of a plan does."""

from __future__ import annotations

import json
from dataclasses import asdict
from random import Random

import pytest

from stillhouse.blocks.schedule import BlockTimes, Plan, Share, Together, plan
from stillhouse.blocks.seats import Seat, seats


def block(*train_s: float) -> BlockTimes:
    return BlockTimes(0.1, train_s, 0, 0)


def planned(relayed: bool, *shares: tuple[int, int, int, Together]) -> Plan:
    return Plan(tuple(Share(*each, 1.0) for each in shares), relayed, 1.0, 1.0)


def test_activations_go_from_share_to_share() -> None:
    """Each worker has one source in the share before its own, who knows of it; the first ones make batches."""
    blocks = [block(1.0, 1.0), block(1.0, 1.0, 1.0), block(1.0)]
    own = seats(planned(True, (0, 0, 2, "alternatives"), (1, 1, 3, "alternatives"), (2, 2, 1, "alone")), blocks)
    assert [each.source for each in own] == [None, None, 0, 1, 0, 2]
    assert [each.targets for each in own] == [(2, 4), (3,), (5,), (), (), ()]
    assert [each.begin for each in own] == [0, 0, 1, 1, 1, 2]


def test_a_prefix_of_ones_own_needs_nobody() -> None:
    """Where nothing is handed on everybody makes batches, and computes the teacher from the first block on."""
    own = seats(planned(False, (0, 0, 1, "alone"), (1, 1, 1, "alone")), [block(1.0), block(1.0)])
    assert [(each.source, each.begin, each.targets) for each in own] == [(None, 0, ()), (None, 0, ())]


def test_alternatives_are_dealt_out_and_batches_are_shared() -> None:
    """The longest goes first, to whoever has least; who shares batches trains everything, and knows the others."""
    blocks = [block(1.0, 4.0, 2.0, 2.0)]
    dealt = seats(planned(True, (0, 0, 2, "alternatives")), blocks)
    assert [each.own for each in dealt] == [((0, 0), (0, 1)), ((0, 2), (0, 3))]
    assert [each.mates for each in dealt] == [(0,), (1,)]
    together = seats(planned(True, (0, 0, 2, "batches")), blocks)
    assert [len(each.own) for each in together] == [4, 4]
    assert [each.mates for each in together] == [(0, 1)] * 2


@pytest.mark.parametrize("seed", range(20))
def test_everything_is_trained_once(seed: int) -> None:
    """Whatever the plan, each replacement is somebody's, nobody's twice, and told as it was after a journey as JSON."""
    dice = Random(seed)
    blocks = [block(*(dice.random() for _ in range(dice.randint(0, 4)))) for _ in range(dice.randint(1, 6))]
    found = plan(blocks, dice.randint(1, 6), dice.choice([1e3, 1e12]), parts_max=1)
    own = seats(found, blocks)
    trained = sorted(each for seat in own for each in seat.own)
    assert trained == [(at, which) for at, each in enumerate(blocks) for which in range(len(each.train_s))]
    assert [Seat.from_json(json.loads(json.dumps(asdict(each)))) for each in own] == own

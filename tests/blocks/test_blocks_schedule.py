"""Who trains which blocks."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from stillhouse.blocks.schedule import BlockTimes, Plan, plan

FAST = 1e10  # bytes/s; a block's gradients take as long as a tenth of its training
WEIGHTS_BYTES = 10**9


def block(teacher_s: float, *train_s: float, output_bytes: int = 0) -> BlockTimes:
    return BlockTimes(teacher_s, train_s, WEIGHTS_BYTES, output_bytes)


def work(blocks: list[BlockTimes]) -> float:
    return sum(each.teacher_s + sum(each.train_s) for each in blocks)


def test_one_worker_has_all() -> None:
    """Alone, nothing is divided, and nothing lost."""
    blocks = [block(1.0, 2.0), block(1.0, 3.0)]
    found = plan(blocks, 1, FAST)
    assert [(each.first, each.last, each.own, each.workers) for each in found.shares] == [(0, 1, ((0, 0), (1, 0)), 1)]
    assert found.step_s == pytest.approx(work(blocks)) and found.efficiency == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(30))
def test_no_division_is_better(seed: int) -> None:
    """With blocks that can't be shared, the slowest worker is as fast as of all ways to divide a row of blocks."""
    dice = Random(seed)
    blocks = [block(dice.random(), dice.random()) for _ in range(dice.randint(2, 7))]
    workers = dice.randint(1, len(blocks))
    ends = [
        max(work(blocks[first:last]) for first, last in zip((0, *cuts), (*cuts, len(blocks)), strict=True))
        for count in range(workers)
        for cuts in combinations(range(1, len(blocks)), count)
    ]
    found = plan(blocks, workers, FAST, parts_max=1)
    assert found.step_s <= min(ends) * (1 + 1e-4)
    assert sum(each.workers for each in found.shares) <= workers
    assert trained(found) == every(blocks)


def every(blocks: list[BlockTimes]) -> list[tuple[int, int]]:
    return [(at, which) for at, each in enumerate(blocks) for which in range(len(each.train_s))]


def trained(found: Plan) -> list[tuple[int, int]]:
    return [pair for each in found.shares for pair in each.own]


@pytest.mark.parametrize("seed", range(30))
def test_a_block_may_be_where_one_hands_over_to_the_next(seed: int) -> None:
    """With several alternatives a block all are trained once, in order but for a block's own, and little is lost."""
    dice = Random(seed)
    blocks = [block(0.05, *(dice.uniform(0.5, 1.0) for _ in range(dice.randint(2, 7)))) for _ in range(12)]
    workers = dice.randint(2, 8)
    found = plan(blocks, workers, FAST, parts_max=1)
    assert sorted(trained(found)) == every(blocks)
    assert [at for at, _ in trained(found)] == sorted(at for at, _ in trained(found))
    for share, after in zip(found.shares, found.shares[1:], strict=False):
        assert share.next_first == after.first and share.last in (after.first - 1, after.first)
    assert found.shares[-1].next_first is None
    assert found.efficiency > 0.9


@pytest.mark.parametrize("relayed", [True, False])
def test_a_share_takes_what_it_says(relayed: bool) -> None:
    """A step is making or getting a batch, the teacher's blocks that are touched, own trainings, and handing on."""
    link = 1e4 if relayed else 1.0
    blocks = [BlockTimes(0.5, (2.0, 1.0), 0, 100), BlockTimes(0.25, (2.0, 1.0, 2.5), 0, 50)]
    found = plan(blocks, 2, link, load_s=0.1, parts_max=1, input_bytes=10)
    one, two = found.shares
    assert found.relayed == relayed and one.next_first == 1 and {at for at, _ in two.own} == {1}
    own_s = [sum(blocks[at].train_s[which] for at, which in each.own) for each in (one, two)]
    assert one.step_s == pytest.approx(0.1 + 0.75 + own_s[0] + (0.01 if relayed else 0.0))
    assert two.step_s == pytest.approx((0.01 if relayed else 0.1 + 0.5) + 0.25 + own_s[1])
    assert found.step_s == max(one.step_s, two.step_s)


def test_a_heavy_block_is_shared() -> None:
    """Of a block as heavy as all others together, several workers have some of the alternatives, or of each batch."""
    light = [block(0.1, 1.0) for _ in range(4)]
    many = plan([*light, block(0.1, 1.0, 1.0, 1.0, 1.0)], 4, FAST)
    assert [each.workers for each in many.shares] == [1, 1, 1, 1] and many.efficiency > 0.9
    single = plan([*light, block(0.1, 8.0)], 4, FAST)
    assert single.shares[-1].workers > 1 and single.efficiency > 0.7


def test_what_does_not_shrink_is_paid_by_each() -> None:
    """Of a block that several workers share, each computes the teacher's pass, and what a smaller batch takes, too."""
    shared = BlockTimes(1.0, (7.0,), 0, 0)
    half = BlockTimes(1.0, (7.0,), 0, 0, fixed_s=4.0)
    assert plan([shared], 4, FAST).step_s == 1.0 + 7.0 / 4
    assert plan([half], 4, FAST).step_s == 1.0 + 4.0 + 3.0 / 4


def test_no_batch_is_cut_finer_than_it_may_be() -> None:
    """A batch that has fewer parts than workers is not shared among them: who can't help otherwise has nothing."""
    heavy = [block(0.1, 8.0)]
    assert plan(heavy, 4, FAST).shares[0].workers == 4
    assert plan(heavy, 4, FAST, parts_max=4).shares[0].workers == 4
    assert plan(heavy, 4, FAST, parts_max=3).shares[0].workers == 3
    assert plan(heavy, 3, FAST, parts_max=4).shares[0].workers == 2  # a third one would leave somebody two parts, too
    assert plan(heavy, 4, FAST, parts_max=1).shares[0].workers == 1


def test_slow_links_mean_own_prefixes() -> None:
    """Where an activation takes longer to hand on than to compute, every worker computes it itself."""
    blocks = [block(0.01, 1.0, output_bytes=10**9) for _ in range(4)]
    assert plan(blocks, 4, 1e12).relayed
    slow = plan(blocks, 4, 1e8)
    assert (not slow.relayed or len(slow.shares) == 1) and slow.efficiency > 0.9

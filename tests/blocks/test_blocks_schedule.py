"""Who trains which blocks."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from stillhouse.blocks.schedule import BlockTimes, Plan, plan

from .every_plan import Row

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


@pytest.mark.parametrize("parts_max", [1, 2, 4, None])
@pytest.mark.parametrize("seed", range(25))
def test_hardly_any_plan_is_better(seed: int, parts_max: int | None) -> None:
    """Of rows of a few blocks, some without alternatives, links fast or slow: within a fiftieth of the best of all."""
    dice = Random(seed)
    blocks = [
        BlockTimes(
            dice.random() * dice.choice([0.01, 0.1, 1.0]),
            tuple(dice.random() * dice.choice([0.1, 1.0, 3.0]) for _ in range(dice.choice([0, 1, 1, 2, 3, 4]))),
            dice.randint(0, 10**6),
            dice.randint(0, 10**6),
            dice.choice([0.0, 0.1]),
        )
        for _ in range(dice.randint(0, 3))
    ]
    last = BlockTimes(0.1, (1.0, dice.random()), 10**5, 0)
    link_bytes_s, workers = dice.choice([1e5, 1e6, 1e7, 1e12]), dice.randint(1, 5)
    row = Row((*blocks, last), link_bytes_s, dice.choice([0.0, 0.1, 0.5]), parts_max, dice.randint(0, 10**6))
    found = plan(row.blocks, workers, link_bytes_s, row.load_s, parts_max, row.input_bytes)
    row.check(found, workers)
    assert row.least_s(workers) * (1 - 1e-9) <= found.step_s <= 1.02 * row.least_s(workers)


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

"""Who trains which blocks."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from stillhouse.blocks.schedule import BlockTimes, plan

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
    assert [(each.first, each.last, each.workers) for each in found.shares] == [(0, 1, 1)]
    assert found.step_s == work(blocks) and found.efficiency == 1.0


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
    found = plan(blocks, workers, FAST)
    assert found.step_s <= min(ends) + 1e-12
    assert sum(each.workers for each in found.shares) <= workers
    covered = [at for each in found.shares for at in range(each.first, each.last + 1)]
    assert covered == list(range(len(blocks)))


def test_a_heavy_block_is_shared() -> None:
    """Of a block as heavy as all others together, several workers share the alternatives, or each batch."""
    light = [block(0.1, 1.0) for _ in range(4)]
    many = plan([*light, block(0.1, 1.0, 1.0, 1.0, 1.0)], 4, FAST)
    assert [(each.workers, each.together) for each in many.shares if each.last == 4] == [(2, "alternatives")]
    single = plan([*light, block(0.1, 8.0)], 4, FAST)
    assert single.shares[-1].together == "batches" and single.shares[-1].workers > 1
    assert single.efficiency > 0.7


def test_what_does_not_shrink_is_paid_by_each() -> None:
    """Of a block that several workers share, each computes the teacher's pass, and what a smaller batch takes, too."""
    shared = BlockTimes(1.0, (7.0,), 0, 0)
    half = BlockTimes(1.0, (7.0,), 0, 0, fixed_s=4.0)
    assert plan([shared], 4, FAST).step_s == 1.0 + 7.0 / 4
    assert plan([half], 4, FAST).step_s == 1.0 + 4.0 + 3.0 / 4


def test_no_batch_is_cut_finer_than_it_may_be() -> None:
    """A batch that has fewer parts than workers is not shared among them: who can't help otherwise has nothing."""
    heavy = [block(0.1, 8.0)]
    assert plan(heavy, 4, FAST).shares[0].together == "batches"
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

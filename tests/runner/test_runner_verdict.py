"""Did distillation help? The words against a second computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from stillhouse.runner.verdict import BLOCKS, accuracy_interval, judge


def arms(accuracy: float, seeds: int, samples: int = 2000, seed: int = 0) -> list[NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    return [random.random(samples) < accuracy for _ in range(seeds)]


@pytest.mark.parametrize(
    ("student", "control", "helped", "words"),
    [(0.9, 0.8, True, "helped: +"), (0.8, 0.9, False, "hurt: -"), (0.8, 0.8, None, "No difference can be shown")],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_verdict_in_words(student: float, control: float, helped: bool | None, words: str, seeds: int) -> None:
    """A clear gain helped, a clear loss hurt, and no difference is called by no better name."""
    verdict = judge(arms(student, seeds), arms(control, seeds, seed=1))
    assert verdict.helped is helped and words in verdict.words
    assert ("one seed each" in verdict.words) == (seeds == 1)
    assert verdict.low is not None and verdict.high is not None and verdict.difference is not None
    assert verdict.low < verdict.difference < verdict.high
    assert f"{100 * verdict.difference:+.1f} points" in verdict.words


def test_interval_of_one_seed_is_the_paired_t_interval() -> None:
    """With one seed the interval is scipy's paired t interval over the test samples."""
    student, control = arms(0.85, 1), arms(0.8, 1, seed=1)
    verdict = judge(student, control)
    wanted = stats.ttest_rel(student[0].astype(float), control[0].astype(float)).confidence_interval(0.95)
    assert (verdict.low, verdict.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9)


def test_interval_of_several_seeds_adds_both_kinds_of_luck() -> None:
    """With seeds the variances of seeds (Welch) and of samples add, degrees of freedom by Satterthwaite."""
    student, control = arms(0.85, 4), arms(0.8, 4, seed=1)
    rates = [[float(each.mean()) for each in arm] for arm in (student, control)]
    gain = np.mean([each.astype(float) for each in student], axis=0) - np.mean(
        [each.astype(float) for each in control], axis=0
    )
    parts = [np.var(rates[0], ddof=1) / 4, np.var(rates[1], ddof=1) / 4, np.var(gain, ddof=1) / len(gain)]
    freedom = sum(parts) ** 2 / sum(part**2 / df for part, df in zip(parts, (3, 3, len(gain) - 1), strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    verdict = judge(student, control)
    middle = np.mean(rates[0]) - np.mean(rates[1])
    assert (verdict.low, verdict.high) == pytest.approx((middle - half, middle + half), rel=1e-9)


def test_interval_keeps_its_promise() -> None:
    """Where there is no difference, at most one verdict in ten claims one."""
    claims = 0
    for seed in range(200):
        found = judge(arms(0.8, 2, 300, 2 * seed), arms(0.8, 2, 300, 2 * seed + 1))
        claims += found.helped is not None
    assert claims <= 20


def test_no_control_no_claim() -> None:
    """Without a control nothing is claimed, and the words say why."""
    verdict = judge(arms(0.9, 1), [])
    assert verdict.helped is None and "There is no control" in verdict.words and verdict.low is None


def test_identical_arms() -> None:
    """Arms that answer alike differ by exactly nothing, and nothing is claimed."""
    verdict = judge(arms(0.9, 2), arms(0.9, 2))
    assert (verdict.helped, verdict.difference) == (None, 0.0)
    assert verdict.low is not None and verdict.low < 0 < verdict.high  # type: ignore[operator]
    same = [arms(0.9, 1)[0]]
    assert (judge(same, same).low, judge(same, same).high, judge(same, same).helped) == (0.0, 0.0, None)


def test_one_test_sample_shows_nothing() -> None:
    """A test split of one sample gives no interval, no claim and no NaN."""
    verdict = judge([np.array([True])], [np.array([False])])
    assert verdict.helped is None and verdict.low is None and verdict.difference == 1.0


@pytest.mark.parametrize(("right", "samples"), [(0, 10), (10, 10), (937, 1000), (1, 2)])
def test_accuracy_interval_is_wilsons(right: int, samples: int) -> None:
    """The interval of an accuracy is Wilson's score interval, within 0..1 even at the ends."""
    correct = np.arange(samples) < right
    z, p = 1.959963984540054, right / samples
    middle = (p + z**2 / (2 * samples)) / (1 + z**2 / samples)
    half = z / (1 + z**2 / samples) * math.sqrt(p * (1 - p) / samples + z**2 / (4 * samples**2))
    low, high = accuracy_interval(correct)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert 0 <= low <= p <= high <= 1


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (0.9, "The teacher's blocks helped: +"),
        (0.7, "The teacher's blocks hurt: -"),
        (0.8, "No difference can be shown between the teacher's blocks and plain training: "),
    ],
)
def test_a_blockwise_run_is_asked_another_question(student: float, words: str) -> None:
    """The words name what was compared: the teacher's blocks, not distillation."""
    assert judge(arms(student, 1), arms(0.8, 1, seed=1), BLOCKS).words.startswith(words)
    assert "whether the teacher's blocks helped" in judge(arms(0.8, 1), [], BLOCKS).words

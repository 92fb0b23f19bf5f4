"""Did the teacher help? The difference between distilled students and controls, with an interval, in words.

Arm k of both starts from the same weights and sees the same order. The interval covers two sources of luck: the
seeds (Welch's t interval over the arms' accuracies) and the test samples (the standard error of the
per-sample difference); their variances are added. With one seed the first can't be known, and the words say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit  # scipy.stats takes longer to load than a small run

_LEVEL = 0.95


@dataclass(frozen=True)
class Question:
    """What is asked: whether ``what`` helped; ``between``: which two things are compared."""

    what: str
    between: str


DISTILLATION = Question("distillation", "distillation and plain training")
BLOCKS = Question("the teacher's blocks", "the teacher's blocks and plain training")


@dataclass(frozen=True)
class Verdict:
    """``helped`` is None where the interval holds zero. Differences are in accuracy, 0..1, student minus control."""

    words: str
    helped: bool | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def judge(
    students: Sequence[NDArray[np.bool_]], controls: Sequence[NDArray[np.bool_]], question: Question = DISTILLATION
) -> Verdict:
    """Compare the arms.

    Args:
        students, controls: for each seed, [N] whether each test sample was classified rightly.
        question: what the words answer.
    """
    if not controls:
        missing = "There is no control (control.seeds: 0, or it diverged)"
        return Verdict(f"{missing}, so nobody can say whether {question.what} helped.", None)
    arms = [np.stack(arm).astype(np.float64) for arm in (students, controls)]
    difference = float(arms[0].mean() - arms[1].mean())
    per_sample = arms[0].mean(axis=0) - arms[1].mean(axis=0)
    samples = len(per_sample)
    if samples < 2:
        return Verdict(
            f"One test sample can't say whether {question.what} helped: give a larger test split.", None, difference
        )
    terms = [(float(per_sample.var(ddof=1)) / samples, samples - 1)]
    terms += [(float(arm.mean(axis=1).var(ddof=1)) / len(arm), len(arm) - 1) for arm in arms if len(arm) > 1]
    variance = sum(term for term, _ in terms)
    if variance == 0:
        half = 0.0
    else:
        freedom = variance**2 / sum(term**2 / degrees for term, degrees in terms if term > 0)
        half = float(stdtrit(freedom, 0.5 + _LEVEL / 2)) * math.sqrt(variance)
    low, high = difference - half, difference + half
    helped = True if low > 0 else False if high < 0 else None
    words = f"{_opening(helped, question)}: {_figures(difference, low, high, len(controls), samples)}"
    return Verdict(words, helped, difference, low, high)


def accuracy_interval(correct: NDArray[np.bool_]) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy over the test samples."""
    right, samples, z = int(correct.sum()), len(correct), float(ndtri(0.5 + _LEVEL / 2))
    middle = (right + z**2 / 2) / (samples + z**2)
    half = z / (samples + z**2) * math.sqrt(right * (samples - right) / samples + z**2 / 4)
    return middle - half if right else 0.0, middle + half if right < samples else 1.0


def _opening(helped: bool | None, question: Question) -> str:
    if helped is None:
        return f"No difference can be shown between {question.between}"
    return f"{question.what[0].upper()}{question.what[1:]} {'helped' if helped else 'hurt'}"


def _figures(difference: float, low: float, high: float, seeds: int, samples: int) -> str:
    figures = f"{100 * difference:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    if seeds > 1:
        return f"{figures}; {seeds} seeds each, {samples:,} test samples)."
    return (
        f"{figures}, over {samples:,} test samples; one seed each, so the luck of the seed is not in it: "
        "raise control.seeds to be sure)."
    )

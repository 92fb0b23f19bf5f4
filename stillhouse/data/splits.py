"""Cutting splits by seed, class by class, so that every split holds every class in proportion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.source import Source
from stillhouse.foundation.errors import DataError
from stillhouse.foundation.seeding import subseed, words


def cut(
    sample_ids: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, seed: int, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut a fraction off a split.

    Args:
        sample_ids: [N] ids to cut from.
        labels: [all] labels by sample id.
        fraction: share to cut from each class, rounded to whole samples; where a class has two, at least one is
            cut and at least one stays.
        seed: the run's; together with ``name`` it fixes the cut.

    Returns:
        What stays and what was cut, both ascending.
    """
    drawn = words(subseed(seed, "split", name), sample_ids, np.zeros_like(sample_ids), 2).astype(np.uint64)
    rank = np.argsort(drawn[:, 0] << np.uint64(32) | drawn[:, 1], kind="stable")
    shuffled = sample_ids[rank]
    taken: list[NDArray[np.int64]] = []
    for label in np.unique(labels[sample_ids]):
        members = shuffled[labels[shuffled] == label]
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        taken.append(members[:count])
    cut_ids = np.sort(np.concatenate(taken)) if taken else sample_ids[:0]
    return np.setdiff1d(sample_ids, cut_ids, assume_unique=True), cut_ids


def check_labels(source: Source, classes: int) -> None:
    """Refuse labels that no classifier can learn.

    Raises:
        DataError: below 0, beyond ``classes``, a class without samples, or one class only.
    """
    labels, name = source.labels, source.name
    if len(labels) == 0:
        raise DataError(f"{name} holds no samples")
    for wrong, what in ((labels < 0, "below 0"), (labels >= classes, f"beyond the last of {classes} classes")):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"{source.describe(row)} has label {labels[row]}, {what}")
    present = np.bincount(labels, minlength=classes)
    if classes < 2:
        raise DataError(f"{name} has one class only: there is nothing to tell apart")
    if (present == 0).any():
        empty = ", ".join(str(each) for each in np.flatnonzero(present == 0)[:5])
        raise DataError(f"{name}: class {empty} has no samples; number the classes 0..{classes - 1} without gaps")

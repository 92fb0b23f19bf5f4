"""Mean and deviation of a split, for networks that say nothing of what they were trained to see.

Up to 20,000 samples, evenly over the split. Sums of pixels are exact integers, so that chunks and their order don't
matter; float samples are merged chunk by chunk (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm
for computing sample variances", 1979). Cost: one pass over those samples, no more than one chunk copied at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.source import spread

_SAMPLES_MAX = 20_000
_CHUNK = 512
_CHUNK_BYTES = 2**26


def channel_statistics(
    rows: NDArray[Any], sample_ids: NDArray[np.int64], image: bool
) -> tuple[list[float], list[float]]:
    """Mean and deviation of a split: per channel of value / 255 for images, else overall.

    Args:
        rows: [N, C, H, W] uint8 images, or [N, *shape] float32.
        sample_ids: the split's rows.
    """
    chosen = sample_ids[spread(len(sample_ids), _SAMPLES_MAX)]
    return _of_images(rows, chosen) if image else _of_floats(rows, chosen)


def _of_images(rows: NDArray[np.uint8], chosen: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    total = squares = np.zeros(rows.shape[1], np.int64)
    for part in _chunks(rows, chosen, _CHUNK):
        total = total + part.sum(axis=(0, 2, 3), dtype=np.int64)
        squares = squares + np.square(part, dtype=np.uint16).sum(axis=(0, 2, 3), dtype=np.int64)
    count = len(chosen) * rows.shape[2] * rows.shape[3]
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
    return [round(float(m) / 255, 6) for m in mean], [max(round(float(d) / 255, 6), 1e-6) for d in deviation]


def _of_floats(rows: NDArray[np.float32], chosen: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    done, mean, variance = 0, 0.0, 0.0
    for part in _chunks(rows, chosen, max(_CHUNK_BYTES // max(rows[:1].nbytes, 1), 1)):
        done += len(part)
        share = len(part) / done  # 1 for the first chunk: most data sets have but one
        ahead = float(part.mean(dtype=np.float64)) - mean
        variance = variance * (1 - share) + float(part.var(dtype=np.float64)) * share + ahead**2 * share * (1 - share)
        mean += ahead * share
    return [mean], [max(float(np.sqrt(variance)), 1e-6)]


def _chunks(rows: NDArray[Any], chosen: NDArray[np.int64], size: int) -> Iterator[NDArray[Any]]:
    for start in range(0, len(chosen), size):
        yield rows[chosen[start : start + size]]

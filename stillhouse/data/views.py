"""Seeded views of samples, a batch at a time: crop, flip, colour, erasing.

A view's every bit is a function of (seed, sample id, view): random words come from a counter-based generator,
arithmetic is on integers, and float values are only moved or set to zero, so that batch size, order, machine and
library release don't matter. Random erasing follows arXiv 1708.04896; the filling is the sample's mean colour, zero
in float samples (a mean of floats depends on the order of summation, which is numpy's affair).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stillhouse.foundation.seeding import below, subseed, words
from stillhouse.recipe.recipe import AugmentSection

PLAIN = -1
"""The view number of a sample as it is."""

FORMAT = 1
"""Raised with any change here that gives other bits for the same key."""

Pixels = NDArray[Any]


def view_shape(shape: tuple[int, ...], crop_px: tuple[int, int] | None) -> tuple[int, ...]:
    """Shape of a view of a sample of ``shape``."""
    return shape if crop_px is None else (shape[0], *crop_px)


def plain(rows: Pixels, crop_px: tuple[int, int] | None) -> Pixels:
    """Views for evaluation: the centre, nothing random. [B, C, H, W] -> [B, C, *crop_px]."""
    if crop_px is None:
        return rows
    top, left = ((have - want) // 2 for have, want in zip(rows.shape[2:], crop_px, strict=True))
    return rows[:, :, top : top + crop_px[0], left : left + crop_px[1]]


def augmented(
    rows: Pixels,
    sample_ids: NDArray[np.int64],
    views: NDArray[np.int64],
    seed: int,
    augment: AugmentSection,
    crop_px: tuple[int, int] | None,
) -> Pixels:
    """Views for training.

    Args:
        rows: [B, C, H, W] uint8 (or float32: then no colour), left unchanged.
        sample_ids: [B].
        views: [B], >= 0.
        seed: the run's.

    Returns:
        [B, C, *view size], of the dtype of ``rows``.
    """
    drawn = words(subseed(seed, "view"), sample_ids, views, 12)
    if augment.pad_px or crop_px:
        rows = _crop(rows, drawn[:, 0:2], augment.pad_px, crop_px or rows.shape[2:])
    if augment.flip:
        mirrored = (drawn[:, 2] & 1).astype(bool)
        rows = np.where(mirrored[:, None, None, None], rows[..., ::-1], rows)
    if augment.colour:
        rows = _colour(rows, drawn[:, 3:6], augment.colour)
    if augment.erase:
        rows = _erase(rows, drawn[:, 6:11], augment.erase)
    return rows


def _crop(rows: Pixels, drawn: NDArray[np.uint32], pad_px: int, size_px: tuple[int, ...]) -> Pixels:
    height, width = rows.shape[2:]
    padded = np.zeros((*rows.shape[:2], height + 2 * pad_px, width + 2 * pad_px), rows.dtype)
    padded[:, :, pad_px : pad_px + height, pad_px : pad_px + width] = rows
    windows = sliding_window_view(padded, size_px, axis=(2, 3))
    top, left = below(drawn[:, 0], windows.shape[2]), below(drawn[:, 1], windows.shape[3])
    cropped: Pixels = windows[np.arange(len(rows)), :, top, left]
    return cropped


def _colour(rows: Pixels, drawn: NDArray[np.uint32], strength: float) -> Pixels:
    """Brightness, contrast, saturation, each by a factor in [1 - strength, 1 + strength], in 1/256 steps."""
    reach = round(strength * 256)
    factors = (256 - reach + below(drawn, 2 * reach + 1)).astype(np.int32)[:, :, None, None, None]
    pixels = _clip(rows.astype(np.int32) * factors[:, 0] >> 8)
    mean = pixels.sum(axis=(1, 2, 3), keepdims=True) // pixels[0].size
    pixels = _clip(mean + ((pixels - mean) * factors[:, 1] >> 8))
    if rows.shape[1] == 3:
        grey = (77 * pixels[:, :1] + 150 * pixels[:, 1:2] + 29 * pixels[:, 2:]) >> 8
        pixels = _clip(grey + ((pixels - grey) * factors[:, 2] >> 8))
    return pixels.astype(np.uint8)


def _erase(rows: Pixels, drawn: NDArray[np.uint32], probability: float) -> Pixels:
    """One rectangle of 1/8 to 1/2 of each side, in a share of the samples."""
    inside = drawn[:, 0] < np.uint64(round(probability * 2**32))
    covers = []
    for axis, size_word, place_word in ((2, 1, 2), (3, 3, 4)):
        side = rows.shape[axis]
        size = 1 + side // 8 + below(drawn[:, size_word], max(side // 2 - side // 8, 1))
        start = (drawn[:, place_word].astype(np.int64) * (side - size + 1)) >> 32
        at = np.arange(side)
        covers.append((at >= start[:, None]) & (at < (start + size)[:, None]))
    covered = (inside[:, None, None] & covers[0][:, :, None] & covers[1][:, None, :])[:, None]
    if rows.dtype != np.uint8:
        return np.where(covered, rows.dtype.type(0), rows)
    filling = rows.sum(axis=(2, 3), keepdims=True, dtype=np.int64) // (rows.shape[2] * rows.shape[3])
    return np.where(covered, filling.astype(rows.dtype), rows)


def _clip(pixels: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.clip(pixels, 0, 255)

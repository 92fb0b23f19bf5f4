"""Seeded views of samples, a batch at a time: crop, flip, colour, erasing.

A view's every bit is a function of (seed, sample id, view): random words come from a counter-based generator,
arithmetic is on integers, and float values are only moved or set to zero, so that batch size, order, machine and
library release don't matter. Random erasing follows arXiv 1708.04896; the filling is the sample's mean colour, zero
in float samples (a mean of floats depends on the order of summation, which is numpy's affair). Windows are copied
straight from the table, and all that follows works in place: few passes over memory are what makes it fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stillhouse.data.colour import recolour
from stillhouse.foundation.seeding import below, subseed, words
from stillhouse.recipe.recipe import AugmentSection

FORMAT = 1
"""Raised with any change here, in ``colour`` or in ``mix`` that gives other bits for the same key."""

_CHUNK_BYTES = 2**20

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


def draw(
    sample_ids: NDArray[np.int64], views: NDArray[np.int64], seed: int, augment: AugmentSection
) -> NDArray[np.uint32]:
    """The random words that fix views, as many as this augmentation needs: [B, up to 11].

    Costs the same for a hundred keys as for a thousand: ask for many at once.
    """
    count = 11 if augment.erase else 6 if augment.colour else 3
    return words(subseed(seed, "view"), sample_ids, views, count)


def augmented(
    rows: Pixels,
    places: NDArray[np.int64],
    drawn: NDArray[np.uint32],
    augment: AugmentSection,
    crop_px: tuple[int, int] | None,
) -> Pixels:
    """Views for training.

    Args:
        rows: [N, C, H, W] uint8 (or float32: then no colour), left unchanged; [N, *shape] if nothing is augmented.
        places: [B] which of the rows each view is of.
        drawn: [B, ...] from :func:`draw` for the keys of these views.

    Returns:
        [B, C, *view size], of the dtype of ``rows``, a copy of its own.
    """
    if augment.pad_px or crop_px:
        found = _cropped(rows, places, drawn[:, 0:2], augment.pad_px, crop_px or rows.shape[2:])
    else:
        found = rows[places]
    if augment.flip:
        _mirror(found, np.flatnonzero(drawn[:, 2] & 1))
    if augment.colour:
        recolour(found, drawn[:, 3:6], augment.colour)
    if augment.erase:
        _erase(found, drawn[:, 6:11], augment.erase)
    return found


def _cropped(
    rows: Pixels, places: NDArray[np.int64], drawn: NDArray[np.uint32], pad_px: int, size_px: tuple[int, ...]
) -> Pixels:
    height, width = (side + 2 * pad_px for side in rows.shape[2:])
    top, left = below(drawn[:, 0], height - size_px[0] + 1), below(drawn[:, 1], width - size_px[1] + 1)
    if not pad_px:
        windows: Pixels = sliding_window_view(rows, size_px, axis=(2, 3))[places, :, top, left]
        return windows
    found = np.empty((len(places), rows.shape[1], *size_px), rows.dtype)
    size = _chunk(found)
    padded = np.zeros((size, rows.shape[1], height, width), rows.dtype)
    inside = padded[:, :, pad_px : height - pad_px, pad_px : width - pad_px]
    for start in range(0, len(places), size):
        part = slice(start, min(start + size, len(places)))
        count = part.stop - start
        inside[:count] = rows[places[part]]
        found[part] = sliding_window_view(padded, size_px, axis=(2, 3))[np.arange(count), :, top[part], left[part]]
    return found


def _mirror(rows: Pixels, chosen: NDArray[np.int64]) -> None:
    """Left and right of the chosen rows in place, bytes in words of up to 8: those are turned round at once."""
    if rows.dtype.itemsize == 1:
        word = next(size for size in (8, 4, 2, 1) if rows.shape[-1] % size == 0)
        rows = rows.view(f"<u{word}")
    turned = rows.view(rows.dtype.newbyteorder(">")) if rows.dtype.kind == "u" else rows
    size = _chunk(rows)
    for start in range(0, len(chosen), size):
        part = chosen[start : start + size]
        rows[part] = turned[part][..., ::-1]


def _erase(rows: Pixels, drawn: NDArray[np.uint32], probability: float) -> None:
    """One rectangle of 1/8 to 1/2 of each side, in a share of the samples, in place."""
    chosen = np.flatnonzero(drawn[:, 0] < np.uint64(round(probability * 2**32)))
    bounds = []
    for axis, size_word, place_word in ((2, 1, 2), (3, 3, 4)):
        side = rows.shape[axis]
        size = 1 + side // 8 + below(drawn[chosen, size_word], max(side // 2 - side // 8, 1))
        start = (drawn[chosen, place_word].astype(np.int64) * (side - size + 1)) >> 32
        bounds += [start, start + size]
    filling = np.zeros((len(chosen), rows.shape[1], 1, 1), rows.dtype)
    if rows.dtype == np.uint8:
        area = rows.shape[2] * rows.shape[3]
        sums = rows.reshape(*rows.shape[:2], area)[chosen].sum(axis=2, dtype=np.int64)
        filling[...] = (sums // area)[:, :, None, None]
    boxes = zip(chosen.tolist(), *(each.tolist() for each in bounds), strict=True)
    for colour, (row, top, bottom, left, right) in zip(filling, boxes, strict=True):
        rows[row, :, top:bottom, left:right] = colour


def _chunk(rows: Pixels) -> int:
    """How many rows at a time stay in the processor's cache, at least one."""
    return min(max(_CHUNK_BYTES // max(rows[:1].nbytes, 1), 1), max(len(rows), 1))

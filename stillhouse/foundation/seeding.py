"""The only maker of random numbers. Counter-based, so that a number depends on its name alone.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a
128-bit counter and a 64-bit key to 128 random bits. We put the seed and the purpose into the key, the sample
id, the view and a draw index into the counter: any number can be had alone, in any order, on any machine,
a whole batch at once. numpy's own generators are not used where bits must last: their streams may
change between releases.

Cost: ten rounds of about twenty vector operations over the batch.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

_M0: Final = np.uint64(0xD2511F53)
_M1: Final = np.uint64(0xCD9E8D57)
_W0: Final = 0x9E3779B9
_W1: Final = 0xBB67AE85
_LOW: Final = np.uint64(0xFFFFFFFF)
_SHIFT: Final = np.uint64(32)


def subseed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. ``subseed(seed, "student", 2)``. Stable for ever."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def philox(key: int, counters: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Random bits for each counter.

    Args:
        key: 64-bit key; only the low 64 bits count.
        counters: [..., 4] words.

    Returns:
        [..., 4] random words, a bijection of the counters for a fixed key.
    """
    c0, c1, c2, c3 = (counters[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(key: int, sample_ids: NDArray[np.int64], views: NDArray[np.int64], count: int) -> NDArray[np.uint32]:
    """``count`` random words for each (sample id, view).

    Args:
        key: from :func:`subseed`.
        sample_ids: [B], 0 <= id < 2**63.
        views: [B], 0 <= view < 2**31.
        count: words wanted for each row.

    Returns:
        [B, count], row i a function of (key, sample_ids[i], views[i]) alone.
    """
    blocks = -(-count // 4)
    ids = sample_ids.astype(np.uint64)
    counters = np.empty((len(ids), blocks, 4), np.uint32)
    counters[..., 0] = (ids & _LOW).astype(np.uint32)[:, None]
    counters[..., 1] = (ids >> _SHIFT).astype(np.uint32)[:, None]
    counters[..., 2] = views.astype(np.uint32)[:, None]
    counters[..., 3] = np.arange(blocks, dtype=np.uint32)[None, :]
    return philox(key, counters).reshape(len(ids), blocks * 4)[:, :count]


def below(random_words: NDArray[np.uint32], bound: int) -> NDArray[np.int64]:
    """Map words to integers in [0, bound) (multiply-shift; bias below bound / 2**32)."""
    return ((random_words.astype(np.uint64) * np.uint64(bound)) >> _SHIFT).astype(np.int64)

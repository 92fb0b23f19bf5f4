"""What goes out to a teacher in another process: keys, and pixels only to one that can't read the data itself.

Nothing but numbers of a known size, so that nothing is trusted that came through a socket: [count, int64 each] sample
ids, views, then, where pixels go along, their shape and the pixels, losslessly compressed where that pays.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stillhouse.foundation.errors import StillhouseError

_HEADER: np.dtype[Any] = np.dtype("<u4")
_KEY: np.dtype[Any] = np.dtype("<i8")
_IMAGE, _FLOAT, _COMPRESSED = 1, 2, 4
_DTYPES: dict[int, np.dtype[Any]] = {_IMAGE: np.dtype(np.uint8), _FLOAT: np.dtype("<f4")}
_SAMPLES, _SAMPLE_BYTES = 16, 2**12
_PAYS = 0.5  # compressing takes as long as sending over a gigabit's line: to more than half it is not worth it


def pack(sample_ids: NDArray[np.int64], views: NDArray[np.int64], inputs: torch.Tensor | None = None) -> bytes:
    """A question about some views.

    Args:
        sample_ids, views: [B] keys.
        inputs: [B, *shape] uint8 or float32 for a teacher that can't make the views itself.
    """
    shape = () if inputs is None else tuple(inputs.shape[1:])
    kind = 0 if inputs is None else _IMAGE if inputs.dtype == torch.uint8 else _FLOAT
    pixels: bytes | memoryview = b""
    if inputs is not None:
        rows = np.ascontiguousarray(inputs.cpu().numpy(), _DTYPES[kind])
        pixels = rows.reshape(-1).view(np.uint8).data
        if _shrinks(pixels):
            kind, pixels = kind | _COMPRESSED, zlib.compress(pixels, 1)
    head = np.array([len(sample_ids), kind, len(shape), *shape], _HEADER).tobytes()
    return b"".join([head, sample_ids.astype(_KEY).tobytes(), views.astype(_KEY).tobytes(), pixels])


def _shrinks(pixels: memoryview) -> bool:
    """Whether a few pieces of it say that compressing pays."""
    step = max(len(pixels) // _SAMPLES, _SAMPLE_BYTES)
    pieces = b"".join(pixels[start : start + _SAMPLE_BYTES] for start in range(0, len(pixels), step))
    return len(zlib.compress(pieces, 1)) <= _PAYS * len(pieces)


def unpack(message: bytes | bytearray) -> tuple[NDArray[np.int64], NDArray[np.int64], torch.Tensor | None]:
    """Sample ids, views and, where they came along, inputs.

    Raises:
        StillhouseError: it is no such question.
    """
    try:
        count, kind, dims = (int(each) for each in np.frombuffer(message, _HEADER, 3))
        shape = tuple(int(each) for each in np.frombuffer(message, _HEADER, dims, 12)) if dims else ()
        start = _HEADER.itemsize * (3 + dims)
        keys = np.frombuffer(message, _KEY, 2 * count, start) if count else np.empty(0, _KEY)
        inputs = None
        if kind:
            dtype = _DTYPES[kind & ~_COMPRESSED]
            size = count * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            content = memoryview(message)[start + keys.nbytes :]
            pixels = zlib.decompressobj().decompress(content, size) if kind & _COMPRESSED else content
            rows = np.frombuffer(bytearray(pixels), dtype).reshape(count, *shape)
            inputs = torch.from_numpy(rows)
    except (ValueError, KeyError, zlib.error) as error:
        raise StillhouseError(f"a question of {len(message)} bytes makes no sense: {error}") from error
    ids, views = keys[:count].astype(np.int64), keys[count:].astype(np.int64)
    return ids, views, inputs

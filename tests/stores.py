"""What the tests of the label store share: a small identity, rows from numbers, flipping bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillhouse.store.label_store import LabelStore, open_store
from stillhouse.store.manifest import Fields, Identity

FIELDS: Fields = [("logits", "<f2", [3]), ("lse", "<f4", [])]
PAYLOAD = 10
ROW = 12 + 8


def identity(**views: object) -> Identity:
    return Identity(
        teacher={"arch": "mlp", "weights": "ab" * 32},
        question={"logits": True, "features": []},
        views={"data": "cd" * 32, "augment": {"pad_px": 4, "flip": True}, **views},
        engine={"precision": "fp32"},
    )


def opened(root: Path, samples: int = 50, bytes_max: int | None = None, **views: object) -> LabelStore:
    return open_store(root, identity(**views), FIELDS, samples, bytes_max)


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def rows_of(sample_ids: NDArray[np.int64], views: NDArray[np.int64], version: int = 0) -> NDArray[np.uint8]:
    """[B, PAYLOAD] rows that differ with key and version, in every byte."""
    numbers = sample_ids * 1_000_003 + views * 7_919 + version * 104_729
    return ((numbers[:, None] * (2 * np.arange(PAYLOAD) + 3) + np.arange(PAYLOAD) * 31) >> 3).astype(np.uint8)


def fill(store: LabelStore, views: int) -> None:
    """Write every row of the first views."""
    ids = np.arange(store.samples)
    for view in range(views):
        at = np.full(len(ids), view)
        store.write(ids, at, rows_of(ids, at))


def flip(file: Path, bit: int) -> None:
    """Turn over one bit of a file."""
    with file.open("r+b") as opened_file:
        opened_file.seek(bit // 8)
        byte = opened_file.read(1)[0]
        opened_file.seek(bit // 8)
        opened_file.write(bytes([byte ^ 1 << bit % 8]))

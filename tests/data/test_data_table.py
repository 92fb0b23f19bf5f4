"""Tables: decoded once, the same rows in memory, on disk, with threads and without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stillhouse.data.decode import Form
from stillhouse.data.open import channel_statistics
from stillhouse.data.parquet import ParquetSource
from stillhouse.data.table import Table, build_table, first_form
from stillhouse.foundation.errors import DataError, StorageError


def built(source: Any, scratch: Path, **changes: Any) -> Table:
    options: dict[str, Any] = {
        "form": Form((1, 6, 6), image=True), "resize": False, "skip": False, "memory_max_bytes": 2**20,
        "scratch": scratch, "threads": 1, "tell": lambda done, count: None,
    }  # fmt: skip
    return build_table(source, **{**options, **changes})


class Counted:
    """700 grey images of 6x6, some of which can't be read."""

    name, class_names, digest = "counted", (), ""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.labels = np.zeros(700, np.int64)
        self._bad = bad

    def read(self, sample_id: int) -> Image.Image:
        if sample_id in self._bad:
            raise OSError("torn")
        return Image.new("L", (6, 6), sample_id % 251)

    def describe(self, sample_id: int) -> str:
        return f"image {sample_id}"


@pytest.mark.parametrize("changes", [{"threads": 4}, {"memory_max_bytes": 10}, {"threads": 3, "memory_max_bytes": 10}])
def test_rows_are_the_same_however_they_are_made(changes: dict[str, Any], tmp_path: Path) -> None:
    """Threads and a memory-mapped file give the same rows as one thread and memory, and leave no file."""
    for source in (Counted(), Counted((3, 300, 699))):
        plain, other = built(source, tmp_path, skip=True), built(source, tmp_path, skip=True, **changes)
        assert isinstance(other.rows, np.memmap) == ("memory_max_bytes" in changes)
        assert other.rows.tobytes() == plain.rows.tobytes()
        assert other.skipped.tolist() == plain.skipped.tolist()
        assert other.reasons == plain.reasons
    assert plain.rows[5].max() == 5
    assert plain.skipped.tolist() == [3, 300, 699]
    assert plain.reasons[0] == "image 3: torn"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_unreadable_sample_is_named(threads: int, tmp_path: Path) -> None:
    """Without skipping, the unreadable sample that comes first is named, with the key that allows to go on."""
    with pytest.raises(DataError, match=r"image 300: torn \(or leave .* data.bad_samples: skip\)"):
        built(Counted((690, 300)), tmp_path, threads=threads)


def test_progress_is_told_in_order(tmp_path: Path) -> None:
    """Whoever listens hears a growing number of samples, up to all of them."""
    told: list[tuple[int, int]] = []
    built(Counted(), tmp_path, threads=3, tell=lambda done, count: told.append((done, count)))
    assert told == [(256, 700), (512, 700), (700, 700)]


def test_no_room_is_told_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room for the decoded samples is an error before the first one is decoded."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"no room for .* No space left"):
        built(Counted((0,)), tmp_path, memory_max_bytes=10)


def test_the_form_is_that_of_the_first_readable_sample(tiny_data: Path) -> None:
    """Unreadable samples at the front don't hide the form; when all are, the last one's story is told."""
    assert first_form(ParquetSource(tiny_data, "image", "label"), None, None) == Form((1, 6, 6), image=True)
    assert first_form(Counted((0, 1, 2)), None, None).shape == (1, 6, 6)
    with pytest.raises(DataError, match="counted: no sample could be read; image 15: torn"):
        first_form(Counted(tuple(range(700))), None, None)


def test_channel_statistics_are_those_of_the_split() -> None:
    """Mean and deviation are per channel, of value / 255, of the samples named alone."""
    rows = np.random.default_rng(0).integers(0, 256, (30, 3, 4, 5), np.uint8)
    ids = np.arange(3, 25)
    mean, deviation = channel_statistics(rows, ids, image=True)
    chosen = rows[ids].astype(np.float64) / 255
    assert mean == pytest.approx(chosen.mean(axis=(0, 2, 3)).tolist(), abs=1e-6)
    assert deviation == pytest.approx(chosen.std(axis=(0, 2, 3)).tolist(), abs=1e-5)
    vectors = rows[:, 0, 0].astype(np.float32)
    mean, deviation = channel_statistics(vectors, ids, image=False)
    assert mean == pytest.approx([vectors[ids].mean()])
    assert deviation == pytest.approx([vectors[ids].std()])

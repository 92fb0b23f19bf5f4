"""Tables: decoded once, the same rows in memory, on disk, with threads and without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stillhouse.data.decode import Form
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


def test_rows_on_disk_without_fallocate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can't reserve space (macOS), the file is filled with zeros, and rows are the same."""
    plain = built(Counted(), tmp_path)
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr("stillhouse.data.table._ZEROS", bytes(1000))
    other = built(Counted(), tmp_path, memory_max_bytes=10)
    assert isinstance(other.rows, np.memmap)
    assert other.rows.tobytes() == plain.rows.tobytes()


class Mixed(Counted):
    """Grey, but every seventh image from number ``first`` on is in colour."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self._first = first

    def read(self, sample_id: int) -> Image.Image:
        colour = sample_id >= self._first and sample_id % 7 == 0
        return Image.new("RGB", (6, 6), (200, 10, 10)) if colour else super().read(sample_id)


def test_one_colour_image_among_those_looked_at_makes_all_rgb() -> None:
    """Images spread over the source, not the first, decide on grey or RGB; what the recipe says goes before."""
    assert first_form(Mixed(400), None, None) == Form((3, 6, 6), image=True)
    assert first_form(Mixed(400), None, 1) == Form((1, 6, 6), image=True)
    assert first_form(Counted(), None, None) == Form((1, 6, 6), image=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_colours_that_are_lost_are_counted(threads: int, tmp_path: Path) -> None:
    """Colour images in a grey table are counted; in an RGB table nothing is lost."""
    assert built(Mixed(400), tmp_path, threads=threads).greyed == 42
    assert built(Mixed(400), tmp_path, threads=threads, form=Form((3, 6, 6), image=True)).greyed == 0
    assert built(Counted(), tmp_path, threads=threads).greyed == 0


def test_the_digest_is_that_of_the_rows(tmp_path: Path) -> None:
    """The digest is the same in memory, on disk and with threads, and notices one value of one row."""
    digests = {built(Counted(), tmp_path, **each).digest for each in ({}, {"threads": 3}, {"memory_max_bytes": 10})}
    assert len(digests) == 1
    assert built(Mixed(699), tmp_path).digest in digests  # 699 % 7 is not 0
    assert built(Mixed(693), tmp_path).digest not in digests


def test_no_room_is_told_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room for the decoded samples is an error before the first one is decoded."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"no room for .* No space left"):
        built(Counted((0,)), tmp_path, memory_max_bytes=10)


def test_the_form_is_that_of_the_first_readable_sample(tiny_data: Path) -> None:
    """Unreadable samples at the front don't hide the form; when all are, the first one's story is told."""
    assert first_form(ParquetSource(tiny_data, "image", "label"), None, None) == Form((1, 6, 6), image=True)
    assert first_form(Counted((0, 1, 2)), None, None).shape == (1, 6, 6)
    with pytest.raises(DataError, match="counted: no sample could be read; image 0: torn"):
        first_form(Counted(tuple(range(700))), None, None)

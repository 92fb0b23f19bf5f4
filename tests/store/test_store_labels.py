"""The label store: what was written is read, anything else is absent, the disk may do what it likes."""

from __future__ import annotations

import errno
import os
import resource
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import PAYLOAD, ROW, fill, flip, identity, ints, opened, rows_of

from stillhouse.foundation.errors import CorruptError, StorageError, UserError
from stillhouse.store.folder import view_path
from stillhouse.store.label_store import LabelStore, open_folder, open_store
from stillhouse.store.manifest import MANIFEST, read_manifest

KEYS = st.lists(st.tuples(st.integers(0, 49), st.integers(-1, 90)), max_size=40)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "labels"


@pytest.fixture
def store(root: Path) -> Iterator[LabelStore]:
    with opened(root) as found:
        yield found


def columns(keys: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    ids, views = np.array(keys, np.int64).reshape(-1, 2).T.copy()
    return ids, views


@settings(max_examples=30, deadline=None)
@given(KEYS, KEYS)
def test_what_was_written_is_read(written: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    """Any batch, in any order, of any views, is read as it was written last, by any handle; the rest is absent."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as store, opened(Path(folder)) as other:
        ids, views = columns(written)
        rows = rows_of(ids, views)
        rows[:, 0] = np.arange(len(rows))  # a key that comes twice has two rows
        assert store.write(ids, views, rows) == len(rows) * ROW
        last = dict(zip(written, rows, strict=True))
        ids, views = columns(asked + written)
        for handle in (store, other):
            found_rows, found = handle.read(ids, views)
            assert found_rows.shape == (len(ids), PAYLOAD) and found_rows.flags.c_contiguous
            assert found.tolist() == [key in last for key in asked + written]
            for key, row, there in zip(asked + written, found_rows, found, strict=True):
                assert bytes(row) == (bytes(last[key]) if there else bytes(PAYLOAD))
            assert handle.damaged_rows == 0


def test_files_are_as_the_manifest_says(store: LabelStore) -> None:
    """Row i of a view lies at i * row_bytes: payload, zeros, checksum; a person can read it with numpy."""
    store.write(ints(7), ints(3), rows_of(ints(7), ints(3)))
    content = view_path(store.folder, 3).read_bytes()
    assert store.row_bytes == ROW and len(content) == 50 * ROW
    row = content[7 * ROW : 8 * ROW]
    assert row[:PAYLOAD] == bytes(rows_of(ints(7), ints(3))[0]) and row[PAYLOAD:12] == b"\0\0" and row[12] % 2 == 1
    assert not any(content[: 7 * ROW]) and not any(content[8 * ROW :])
    assert view_path(store.folder, 3).name == "000003.rows" and view_path(store.folder, -1).name == "plain.rows"


def test_nothing_is_found_outside(store: LabelStore) -> None:
    """Ids and views that can't be there are not found, and can't be written."""
    fill(store, 1)
    found = store.read(ints(0, 49, 50, -1, 2**40), ints(0, 0, 0, 0, 0))[1]
    assert found.tolist() == [True, True, False, False, False]
    assert not store.read(ints(0, 0), ints(-2, 2**40))[1].any()
    for wrong in ((ints(50), ints(0)), (ints(-1), ints(0)), (ints(0), ints(-2))):
        with pytest.raises(ValueError, match="sample id"):
            store.write(*wrong, np.zeros((1, PAYLOAD), np.uint8))
    with pytest.raises(ValueError, match="not uint8"):
        store.write(ints(0), ints(0), np.zeros((1, PAYLOAD + 1), np.uint8))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, ROW * 8 - 1), st.integers(0, 49))
def test_one_flipped_bit_is_refused(bit: int, sample_id: int) -> None:
    """One bit turned over anywhere in a row loses that row and no other; it is counted, and can be written again."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as store:
        fill(store, 1)
        flip(view_path(store.folder, 0), sample_id * ROW * 8 + bit)
        ids, views = np.arange(50), np.zeros(50, np.int64)
        rows, found = store.read(ids, views)
        assert np.flatnonzero(~found).tolist() == [sample_id] and not rows[sample_id].any()
        assert store.damaged_rows == 1
        assert store.missing(ids, 0).tolist() == [sample_id]
        store.write(ids, views, rows_of(ids, views))
        assert store.read(ids, views)[1].all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 50 * ROW), st.booleans())
def test_a_file_cut_anywhere(length: int, mapped: bool) -> None:
    """A file cut at any byte has the rows that are wholly there; writing makes it whole again."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as store:
        fill(store, 1)
        ids, views = np.arange(50), np.zeros(50, np.int64)
        if mapped:
            store.read(ids, views)
        os.truncate(view_path(store.folder, 0), length)
        assert store.read(ids, views)[1].tolist() == [(i + 1) * ROW <= length for i in range(50)]
        store.write(ids[49:], views[49:], rows_of(ids, views)[49:])
        assert store.read(ids, views)[1].tolist() == [(i + 1) * ROW <= length or i == 49 for i in range(50)]
        os.truncate(view_path(store.folder, 0), length)
        store.write(ids[:1], views[:1], rows_of(ids, views)[:1])
        assert view_path(store.folder, 0).stat().st_size == 50 * ROW
        fill(store, 1)
        rows, found = store.read(ids, views)
        assert found.all() and (rows == rows_of(ids, views)).all()


def test_rows_moved_elsewhere(root: Path, store: LabelStore) -> None:
    """Rows copied to another sample, another view, or from another store are refused there."""
    fill(store, 1)
    content = view_path(store.folder, 0).read_bytes()
    view_path(store.folder, 1).write_bytes(content)
    view_path(store.folder, 0).write_bytes(content[ROW:] + content[:ROW])
    with opened(root, flavour=1) as other:
        fill(other, 1)
        view_path(other.folder, 0).write_bytes(content)
        for handle, view in ((store, 0), (store, 1), (other, 0)):
            assert not handle.read(np.arange(50), np.full(50, view))[1].any()
            assert handle.damaged_rows >= 50


def test_a_view_file_that_vanishes(store: LabelStore) -> None:
    """A view's file deleted under an open store is absent, and made anew by the next row."""
    fill(store, 1)
    view_path(store.folder, 0).unlink()
    assert not store.read(ints(1, 2), ints(0, 0))[1].any()
    store.write(ints(2), ints(0), rows_of(ints(2), ints(0)))
    assert store.read(ints(1, 2), ints(0, 0))[1].tolist() == [False, True]
    view_path(store.folder, 0).write_bytes(b"")
    assert not store.read(ints(1, 2), ints(0, 0))[1].any()


def test_more_views_than_open_files(store: LabelStore) -> None:
    """Hundreds of views in one batch work with a bounded number of descriptors."""
    views = np.arange(300)
    ids = views % 50
    before = len(os.listdir("/proc/self/fd"))
    store.write(ids, views, rows_of(ids, views))
    rows, found = store.read(ids, views)
    assert found.all() and (rows == rows_of(ids, views)).all()
    assert len(os.listdir("/proc/self/fd")) - before <= 2 * 64


def test_threads_share_a_store(store: LabelStore) -> None:
    """Threads that write and read at once, with more views than open files, read nothing false."""
    wrong: list[str] = []

    def work(first: int) -> None:
        for turn in range(40):
            views = (np.arange(8) * 13 + first + turn) % 100
            ids = (np.arange(8) + turn) % 50
            store.write(ids, views, rows_of(ids, views))
            rows, found = store.read(ids, views)
            if not found.all() or (rows != rows_of(ids, views)).any():
                wrong.append(f"{first} {turn}")

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_missing_rows(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is told in the order asked, over any number of chunks, for views without a file, too."""
    monkeypatch.setattr("stillhouse.store.label_store._CHUNK_BYTES", 7 * ROW)
    there = ints(3, 10, 11, 12, 13, 14, 15, 16, 48)
    store.write(there, np.zeros_like(there), rows_of(there, np.zeros_like(there)))
    asked = np.arange(50)[::-1].copy()
    assert store.missing(asked, 0).tolist() == [i for i in asked.tolist() if i not in there]
    assert store.missing(asked, 5).tolist() == asked.tolist()
    assert store.missing(ints(), 0).tolist() == []


def test_holes_are_not_read(root: Path) -> None:
    """Looking for what is missing among 100 million rows reads only where something was written."""
    with opened(root, samples=100_000_000) as store:
        ids = ints(50_000_000, 99_999_999)
        store.write(ids, ints(0, 0), rows_of(ids, ints(0, 0)))
        assert view_path(store.folder, 0).stat().st_size == 100_000_000 * ROW
        assert store.bytes_on_disk() < 200_000
        asked = np.arange(49_000_000, 51_000_000)
        assert len(store.missing(asked, 0)) == 1_999_999
        assert store.read(ids, ints(0, 0))[1].all()


def test_two_makers_of_one_store(root: Path) -> None:
    """Racing creators all succeed with the same store and leave nothing beside it."""
    made: list[LabelStore] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        made.append(opened(root))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    for number, each in enumerate(made):
        each.write(ints(number), ints(0), rows_of(ints(number), ints(0)))
    assert made[0].read(np.arange(8), np.zeros(8, np.int64))[1].all()
    for each in made:
        each.close()
    assert [each.name for each in root.iterdir() if each.name != ".lock"] == [identity().digest[:16]]


def test_a_store_of_other_rows_is_refused(root: Path, store: LabelStore) -> None:
    """Another form of the rows, number of samples or identity under this name is refused with what differs."""
    with pytest.raises(UserError, match=r"samples: 50 there, 51 here.*store\.path"):
        opened(root, samples=51)
    with pytest.raises(UserError, match=r"fields: logits <f2\[3\], lse <f4 there, logits <f4\[3\] here"):
        open_store(root, identity(), [("logits", "<f4", [3])], 50, None)
    store.folder.rename(root / identity(seed=2).digest[:16])
    with pytest.raises(UserError, match=r"views\.seed: not set there, 2 here"):
        opened(root, seed=2)


def test_a_damaged_manifest_is_refused(root: Path, store: LabelStore) -> None:
    """A manifest cut, edited, of a newer version, foreign or gone is refused in words that say what to do."""
    path = store.folder / MANIFEST
    whole = path.read_text()
    cases = [
        (whole[:-40], CorruptError, "damaged"),
        (whole.replace('"pad_px": 4', '"pad_px": 5'), CorruptError, "damaged or edited"),
        (whole.replace('"format": 1', '"format": 2'), UserError, "format 2, this Stillhouse reads format 1"),
        ('{"name": "a web page"}', UserError, "not the manifest of a label store"),
        ("\x00", CorruptError, "stillhouse store prune"),
        (None, UserError, "is no label store"),
    ]
    for content, kind, words in cases:
        path.unlink()
        if content is not None:
            path.write_text(content)
            assert content != whole
        with pytest.raises(kind, match=words):
            open_folder(store.folder)
        path.touch()


def test_a_damaged_manifest_is_written_anew_by_who_knows_it(root: Path, store: LabelStore) -> None:
    """A run that knows the identity mends the manifest and reads the rows; a foreign or newer one stays refused."""
    path = store.folder / MANIFEST
    whole = path.read_text()
    fill(store, 1)
    for content in (whole[:-40], whole.replace('"pad_px": 4', '"pad_px": 5'), "\x00", ""):
        path.write_text(content)
        with opened(root) as again:
            assert len(again.missing(np.arange(50), 0)) == 0
        assert read_manifest(store.folder).identity.digest == identity().digest
    for content in (whole.replace('"format": 1', '"format": 2'), '{"name": "a web page"}'):
        path.write_text(content)
        with pytest.raises(UserError):
            opened(root)
        assert path.read_text() == content


def test_a_root_that_cannot_be(root: Path) -> None:
    """A root that is a file, below a file, or where the store is a dangling link is refused, naming the setting."""
    root.write_text("precious")
    for wrong in (root, root / "deep"):
        with pytest.raises(StorageError, match=r"store\.path"):
            opened(wrong)
    assert root.read_text() == "precious"
    links = root.with_name("links")
    links.mkdir()
    (links / identity().digest[:16]).symlink_to("nowhere")
    with pytest.raises(StorageError, match=r"store\.path"):
        opened(links)


def test_room_is_kept(root: Path) -> None:
    """Views beyond bytes_max are not written but counted; what is there stays usable; other stores count."""
    with opened(root, samples=1000, bytes_max=5 * 20_480 + 20_000) as store:
        assert store.planned_bytes(1) == 20_480 and store.planned_bytes(3) == 3 * 20_480
        assert store.views_that_fit == 5
        fill(store, 8)
        assert store.refused_rows == 3000
        assert [store.read(ints(999), ints(view))[1][0] for view in range(8)] == [True] * 5 + [False] * 3
        assert store.bytes_on_disk() <= 5 * 20_480 + 20_000
    (root / "other people's").write_bytes(bytes(10**6))
    with opened(root, samples=1000, bytes_max=7 * 20_480, flavour=1) as other:
        assert other.views_that_fit == 1
        fill(other, 2)
        assert other.refused_rows == 1000
    with opened(root, samples=1000, bytes_max=20_480) as store:
        assert store.views_that_fit == 5
        fill(store, 6)
        assert store.refused_rows == 1000 and len(store.missing(np.arange(1000), 4)) == 0


def test_a_full_disk(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a row ends in words; rows before stay valid, the torn one is absent."""
    whole = os.pwrite
    left = 3 * ROW + 13

    def pwrite(handle: int, data: memoryview, offset: int) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = whole(handle, data[:left], offset)
        left -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)
    ids, views = np.arange(10), np.zeros(10, np.int64)
    with pytest.raises(StorageError, match=r"No space left on device.*stay valid.*stillhouse store prune"):
        store.write(ids, views, rows_of(ids, views))
    monkeypatch.undo()
    assert store.read(ids, views)[1].tolist() == [True] * 3 + [False] * 7
    store.write(ids, views, rows_of(ids, views))
    assert store.read(ids, views)[1].all()


def test_a_limit_on_file_sizes(store: LabelStore) -> None:
    """A quota that refuses the file at all is told in words, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            store.write(ints(40), ints(0), rows_of(ints(40), ints(0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not store.read(ints(40), ints(0))[1].any()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_somebody_elses_store(root: Path, store: LabelStore) -> None:
    """A store that may only be read is read; writing says what is wrong."""
    fill(store, 1)
    places = [store.folder, *store.folder.rglob("*"), root]
    for each in places:
        each.chmod(stat.S_IRUSR | (stat.S_IXUSR if each.is_dir() else 0))
    try:
        with opened(root) as found:
            assert found.read(ints(3), ints(0))[1].all()
            for view in (0, 1):
                with pytest.raises(StorageError, match="Permission denied"):
                    found.write(ints(3), ints(view), rows_of(ints(3), ints(view)))
    finally:
        for each in reversed(places):
            each.chmod(0o755)


def test_a_file_that_cannot_be_opened(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable view file is an error in words, never 'absent'."""
    fill(store, 1)
    store.close()
    whole = os.open

    def refuse(path: object, *args: int) -> int:
        if str(path).endswith(".rows"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return whole(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match=r"000000\.rows can't be read \(Permission denied\)"):
        store.read(ints(0), ints(0))


def test_fields_that_are_none(root: Path) -> None:
    """Fields that make no row of fixed width are a mistake of ours, told at once."""
    for wrong in ([], [("x", "<f4", [0])], [("x", "O", [])], [("x", "float3", [])]):
        with pytest.raises(ValueError, match="fields"):
            open_store(root, identity(), wrong, 5, None)

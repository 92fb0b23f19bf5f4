"""The folder of many stores: what stands there, which is nearest, what goes; and what is in one of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import FIELDS, ROW, fill, flip, identity, ints, opened, rows_of

from stillhouse.foundation.errors import StorageError, UserError
from stillhouse.store.examine import export, filled, verify
from stillhouse.store.folder import USED, view_path
from stillhouse.store.label_store import open_store
from stillhouse.store.manifest import MANIFEST, Identity, dtype_of
from stillhouse.store.shelf import clear_leftovers, nearest, remove, stores, to_prune

DAY_S = 86400
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PART = st.dictionaries(st.text(max_size=5), JSON, max_size=3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three stores with 1, 2 and 3 views, last used 10, 20 and 30 days ago."""
    for number in (1, 2, 3):
        with opened(tmp_path / "labels", samples=1000, flavour=number) as store:
            fill(store, number)
        aged(store.folder, 10 * number)
    return tmp_path / "labels"


def aged(folder: Path, days: float) -> None:
    then = time.time() - days * DAY_S
    os.utime(folder / USED, (then, then))


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


def flavours(found: list) -> list[int]:
    return [each.manifest.identity.views["flavour"] for each in found]


@given(PART, PART)
def test_equal_digests_mean_no_difference(one: dict, other: dict) -> None:
    """Two identities have the same digest exactly if no key differs, and a copy through JSON is the same one."""
    here, there = Identity(one, {}, other, {}), Identity(other, {}, one, {})
    assert (here.digest == there.digest) == (here.differences(there) == [])
    assert Identity(**json.loads(json.dumps(here.parts))).digest == here.digest
    assert here.differences(here) == []


def test_differences_are_told_by_key() -> None:
    """A difference names its dotted key and both values; tuples are lists."""
    here = identity(augment={"pad_px": 2, "flip": True}, crop_px=(8, 8))
    there = identity(crop_px=[8, 8], seed=1)
    assert here.differences(there) == ["views.augment.pad_px: 4 there, 2 here", "views.seed: 1 there, not set here"]


def test_what_stands_there(root: Path) -> None:
    """Stores are listed with sizes, views and last use, the latest first; other things are not touched or told."""
    (root / "notes").mkdir()
    (root / "notes" / MANIFEST).write_text("{}")
    (root / ("a" * 16)).mkdir()
    found = stores(root)
    assert flavours(found) == [1, 2, 3] and [each.views for each in found] == [1, 2, 3]
    assert [round((time.time() - each.last_used) / DAY_S) for each in found] == [10, 20, 30]
    for each in found:
        assert each.views * 1000 * ROW <= each.bytes_on_disk <= each.views * 1000 * ROW + 30_000
        assert filled(each.folder) == 1.0 and not each.in_use and each.problem == ""
        assert stores(each.folder) == [each]
    with pytest.raises(UserError, match=r"store\.path"):
        stores(root / "nowhere")


def test_a_manifest_that_cannot_be_read_is_told(root: Path) -> None:
    """A store with a damaged manifest is listed with its problem, is nobody's nearest, and can be thrown away."""
    broken = stores(root)[0].folder
    (broken / MANIFEST).write_text("{")
    found = stores(root)[0]
    assert found.folder == broken and found.manifest is None and "damaged" in found.problem
    best = nearest(root, identity(flavour=1))
    assert best is not None and best[1] == ["views.flavour: 2 there, 1 here"]
    assert remove(broken) and not broken.exists()


def test_the_nearest_store(root: Path) -> None:
    """The store with the fewest differing keys is named with them; the very one differs in nothing."""
    best = nearest(root, identity(flavour=2))
    assert best is not None and best[1] == [] and flavours([best[0]]) == [2]
    best = nearest(root, identity(flavour=3, augment={"pad_px": 2, "flip": True}))
    assert best is not None and best[1] == ["views.augment.pad_px: 4 there, 2 here"] and flavours([best[0]]) == [3]
    assert nearest(root / "nowhere", identity()) is None
    (root / "empty").mkdir()
    assert nearest(root / "empty", identity()) is None


def test_filled_is_an_estimate(tmp_path: Path) -> None:
    """A store that is too large to count is looked at in 20,000 places."""
    with opened(tmp_path, samples=100_000) as store:
        for view, count in ((0, 100_000), (1, 30_000)):
            ids, views = np.arange(count), np.full(count, view)
            store.write(ids, views, rows_of(ids, views))
    assert filled(store.folder) == pytest.approx(0.65, abs=0.01)
    with opened(tmp_path, flavour=1) as empty:
        assert filled(empty.folder) == 0.0


def test_what_is_thrown_away(root: Path) -> None:
    """By name, by age, the longest unused until the rest is small enough; or all of these together."""
    found, now = stores(root), time.time()
    names = [each.folder.name for each in found]
    assert flavours(to_prune(found, now, [names[1][:6]])) == [2]
    assert flavours(to_prune(found, now, older_than_days=15)) == [2, 3]
    small, middle = found[0].bytes_on_disk, found[1].bytes_on_disk
    assert flavours(to_prune(found, now, bytes_max=small + middle)) == [3]
    assert flavours(to_prune(found, now, bytes_max=small + middle - 1)) == [2, 3]
    assert flavours(to_prune(found, now, [names[2]], bytes_max=small)) == [2, 3]
    assert flavours(to_prune(found, now, bytes_max=0)) == [1, 2, 3]
    assert to_prune(found, now, bytes_max=10**9) == [] == to_prune(found, now)
    with pytest.raises(UserError, match="known here"):
        to_prune(found, now, ["nothing"])
    with pytest.raises(UserError, match="which of"):
        to_prune(found, now, [""])


def test_a_store_in_use_stays(root: Path) -> None:
    """A store that is open is not removed, nor chosen for its size, and its reader goes on; once closed, it goes."""
    oldest = stores(root)[2].folder
    with opened(root, samples=1000, flavour=3) as store:
        aged(oldest, 30)
        found = stores(root)
        assert [each.in_use for each in found] == [False, False, True]
        assert flavours(to_prune(found, time.time(), bytes_max=0)) == [1, 2]
        assert not remove(oldest)
        assert store.read(ints(5), ints(2))[1].all()
    assert remove(oldest) and remove(oldest)
    assert len(stores(root)) == 2 and not list(root.glob(".*.part"))
    with opened(root, samples=1000, flavour=3) as store:
        assert not store.read(ints(5), ints(2))[1].any()


def test_use_is_noted(root: Path) -> None:
    """Opening a store for a run and closing it are uses; looking at it is none."""
    folder = stores(root)[2].folder
    filled(folder)
    verify(folder, quiet)
    assert time.time() - (folder / USED).stat().st_mtime > 29 * DAY_S
    store = opened(root, samples=1000, flavour=3)
    assert time.time() - (folder / USED).stat().st_mtime < 60
    aged(folder, 5)
    store.close()
    store.close()
    assert time.time() - (folder / USED).stat().st_mtime < 60


def test_what_killed_processes_left(root: Path) -> None:
    """Stores half deleted go, and those half made for hours; a store being made, and other people's files, stay."""
    name = "0123456789abcdef"
    left = [f".{name}.{kind}-{name}.part" for kind in ("old", "new")] + [f".{name[::-1]}.new-{name}.part", ".x.part"]
    for each in left:
        (root / each / "views").mkdir(parents=True)
    long_ago = time.time() - 2 * 3600
    os.utime(root / left[1], (long_ago, long_ago))
    clear_leftovers(root)
    assert sorted(each.name for each in root.glob(".*.part")) == sorted(left[2:])


def test_a_link_is_left_alone(root: Path) -> None:
    """A store that is a link is listed, and not deleted."""
    target = stores(root)[0].folder
    elsewhere = root.parent / target.name
    target.rename(elsewhere)
    target.symlink_to(elsewhere)
    assert len(stores(root)) == 3
    with pytest.raises(UserError, match="is a link"):
        remove(target)
    assert elsewhere.exists()


def test_verify_counts_rows(root: Path) -> None:
    """Every view is told with its valid, absent and damaged rows, and the first damaged samples."""
    folder = stores(root)[1].folder
    for sample_id in (900, 17, 18, 19, 20, 21, 22):
        flip(view_path(folder, 1), sample_id * ROW * 8 + 9)
    with view_path(folder, 0).open("r+b") as file:
        file.truncate(990 * ROW + 3)
    first, second = verify(folder, quiet)
    assert (first.view, first.valid, first.absent, first.damaged, first.first_damaged) == (0, 990, 10, 0, ())
    assert (second.valid, second.absent, second.damaged) == (993, 0, 7)
    assert second.first_damaged == (17, 18, 19, 20, 21)


def test_export_and_back(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Parquet file has exactly the valid rows, half floats as floats, and says whose they are."""
    monkeypatch.setattr("stillhouse.store.label_store._CHUNK_BYTES", 300 * ROW)
    folder = stores(root)[1].folder
    flip(view_path(folder, 1), 5 * ROW * 8)
    assert export(folder, tmp_path / "rows.parquet", quiet) == 1999
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.column_names == ["sample_id", "view", "logits", "lse"]
    assert json.loads(table.schema.metadata[b"stillhouse"])["identity"] == identity(flavour=2).parts
    ids, views = table["sample_id"].to_numpy(), table["view"].to_numpy().astype(np.int64)
    assert sorted(zip(views.tolist(), ids.tolist(), strict=True)) == [
        (view, i) for view in (0, 1) for i in range(1000) if (view, i) != (1, 5)
    ]
    rows = rows_of(ids, views).view(dtype_of(FIELDS))[:, 0]
    logits = np.array(table["logits"].to_pylist(), np.float32)
    assert np.array_equal(logits, rows["logits"].astype(np.float32), equal_nan=True)
    assert np.array_equal(table["lse"].to_numpy(), rows["lse"], equal_nan=True)
    assert list(tmp_path.glob(".*.part")) == []


def test_export_of_fields_with_axes(tmp_path: Path) -> None:
    """Fields with two axes are lists, row-major; integers keep their type."""
    fields = [("map", "<i2", [2, 3]), ("top", "<u2", [2])]
    with open_store(tmp_path / "labels", identity(), fields, 4, None) as store:
        row = np.zeros(1, dtype_of(fields))
        row["map"], row["top"] = np.arange(6).reshape(2, 3), [7, 8]
        store.write(ints(2), ints(-1), row.view(np.uint8)[None])
    export(store.folder, tmp_path / "rows.parquet", quiet)
    found = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert found == [{"sample_id": 2, "view": -1, "map": [0, 1, 2, 3, 4, 5], "top": [7, 8]}]


def test_export_to_nowhere(root: Path) -> None:
    """A file that can't be written is told, an older one stays, and nothing is left."""
    folder = stores(root)[0].folder
    with pytest.raises(StorageError, match="could not write"):
        export(folder, root / "none" / "rows.parquet", quiet)
    (root / "rows.parquet").mkdir()
    with pytest.raises(StorageError, match="could not write"):
        export(folder, root / "rows.parquet", quiet)
    assert list(root.glob(".*.part")) == []

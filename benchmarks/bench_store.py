"""The label store against LMDB, the usual embedded store for rows of fixed width: 256 rows a batch.

Rows are 36 bytes; ours carry 8 bytes of checksum and every row read is verified. LMDB gets its best: integer keys, no
checksum, one long-lived read transaction, buffers instead of copies, keys of a batch sorted, no locks between
processes; for writing one transaction a batch, never synced, its file mapped writable. Both hand out one array in the
order asked, both lie in the page cache. ``store_read_100m`` reads ours from a sparse file of 100 million rows.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Claim, compare, quick, tell
from stillhouse.store.label_store import LabelStore, open_store
from stillhouse.store.manifest import Identity

try:
    import lmdb
except ImportError:
    sys.exit("bench_store compares with LMDB, which is not installed: pip install 'stillhouse[bench]'")

BATCH = 256
PAYLOAD = 36
MAP_BYTES = 4 * 2**30
READ = "rows a second, random batches of 256 rows of 36 bytes: ours verified / LMDB unverified, 1 million rows each"
READ_100M = "the same reads, ours from a sparse file of 100 million rows (4.4 GB) / LMDB with 1 million"
WRITE = "rows a second, a new store's rows once in random order, not synced: ours / LMDB, one transaction a batch"
FILL = "the same in the order of the samples, as offline filling does: ours / LMDB (sorted, no append)"

Batches = list[NDArray[np.int64]]
Reader = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def rows_of(sample_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """[B, PAYLOAD] some rows, each its sample's own."""
    odd = np.arange(1, 2 * PAYLOAD, 2, dtype=np.uint64)
    mixed: NDArray[np.uint64] = sample_ids.astype(np.uint64)[:, None] * odd * np.uint64(0x9E3779B9)
    return (mixed >> np.uint64(24)).astype(np.uint8)


def new_store(folder: Path, samples: int) -> LabelStore:
    """An empty store."""
    return open_store(folder, Identity({"samples": samples}, {}, {}, {}), [("logits", "<f4", [9])], samples)


def write_store(store: LabelStore, batches: Batches) -> None:
    """Write batches of one view."""
    views = np.zeros(BATCH, np.int64)
    for ids in batches:
        store.write(ids, views[: len(ids)], rows_of(ids))


def store_reader(store: LabelStore) -> Reader:
    """Reads a batch from our store."""
    views = np.zeros(BATCH, np.int64)

    def read(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        rows, found = store.read(ids, views)
        assert found.all()
        return rows

    return read


def open_lmdb(folder: Path) -> tuple[lmdb.Environment, Any]:
    """LMDB with integer keys and nothing that costs time."""
    folder.mkdir(exist_ok=True)
    env = lmdb.open(
        str(folder), map_size=MAP_BYTES, max_dbs=1, sync=False, metasync=False, writemap=True, lock=False, meminit=False
    )
    return env, env.open_db(b"rows", integerkey=True)


def write_lmdb(env: lmdb.Environment, database: Any, batches: Batches) -> None:
    """Write batches, each sorted, each in a transaction of its own."""
    for ids in batches:
        ids = np.sort(ids)
        keys, rows = ids.tobytes(), rows_of(ids).tobytes()
        with env.begin(write=True, db=database) as transaction:
            for number in range(len(ids)):
                key = keys[8 * number : 8 * number + 8]
                transaction.put(key, rows[PAYLOAD * number : PAYLOAD * (number + 1)])


def lmdb_reader(env: lmdb.Environment, database: Any) -> Reader:
    """Reads a batch from LMDB; the transaction stays open."""
    get: Callable[[bytes], Any] = env.begin(db=database, buffers=True).get

    def read(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        order = np.argsort(ids)
        keys = ids[order].tobytes()
        found = b"".join(map(get, [keys[at : at + 8] for at in range(0, len(keys), 8)]))
        rows = np.empty((len(ids), PAYLOAD), np.uint8)
        rows[order] = np.frombuffer(found, np.uint8).reshape(-1, PAYLOAD)
        return rows

    return read


def rate(read: Reader, batches: itertools.cycle[NDArray[np.int64]], count: int) -> Callable[[], float]:
    """Rows a second of the next batches."""

    def measured() -> float:
        asked = list(itertools.islice(batches, count))
        begun = time.perf_counter()
        for ids in asked:
            read(ids)
        return count * BATCH / (time.perf_counter() - begun)

    return measured


def reads(folder: Path, rounds: int, count: int) -> list[Claim]:
    """Both claims about reading."""
    samples = 1_000_000
    generator = np.random.default_rng(0)
    near = [generator.integers(0, samples, BATCH) for _ in range(1000)]
    far = [generator.integers(0, 100 * samples, BATCH) for _ in range(200)]
    everything = np.array_split(np.arange(samples), samples // BATCH + 1)
    env, database = open_lmdb(folder / "read.lmdb")
    with new_store(folder, samples) as store, new_store(folder, 100 * samples) as large:
        write_store(store, everything)
        write_store(large, far)
        write_lmdb(env, database, everything)
        ours, ours_large, rival = store_reader(store), store_reader(large), lmdb_reader(env, database)
        for ids in near:
            assert np.array_equal(ours(ids), rival(ids))
        for ids in far:
            assert np.array_equal(ours_large(ids), rows_of(ids))
        theirs = rate(rival, itertools.cycle(near), count)
        mine, mine_large = (rate(ours, itertools.cycle(near), count), rate(ours_large, itertools.cycle(far), count))
        return [
            compare("store_read", READ, "rows/s", mine, theirs, rounds),
            compare("store_read_100m", READ_100M, "rows/s", mine_large, theirs, rounds),
        ]


def writes(folder: Path, rounds: int, claim: str, definition: str, sample_ids: NDArray[np.int64]) -> Claim:
    """A claim about writing: new stores each round, all rows in the order of ``sample_ids``."""
    numbers, samples = itertools.count(), len(sample_ids)
    batches = np.array_split(sample_ids, samples // BATCH)

    def ours() -> float:
        place = folder / f"{next(numbers)}.store"
        with new_store(place, samples) as store:
            begun = time.perf_counter()
            write_store(store, batches)
            spent = time.perf_counter() - begun
        shutil.rmtree(place)
        return samples / spent

    def rival() -> float:
        place = folder / f"{next(numbers)}.lmdb"
        env, database = open_lmdb(place)
        begun = time.perf_counter()
        write_lmdb(env, database, batches)
        spent = time.perf_counter() - begun
        env.close()
        shutil.rmtree(place)
        return samples / spent

    ours(), rival()
    return compare(claim, definition, "rows/s", ours, rival, rounds)


if __name__ == "__main__":
    short = quick()
    rounds = 5 if short else 15
    with tempfile.TemporaryDirectory(prefix="bench_store.") as made:
        found = reads(Path(made), rounds, 200 if short else 1000)
        everything = np.arange((100 if short else 800) * BATCH)
        shuffled = np.random.default_rng(1).permutation(everything)
        found.append(writes(Path(made), rounds, "store_write", WRITE, shuffled))
        found.append(writes(Path(made), rounds, "store_fill", FILL, everything))
    tell("store", found, write=not short)

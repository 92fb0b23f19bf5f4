"""Any sequence of writing, reopening, damaging and cutting: a row that is found is one that was written there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from stores import PAYLOAD, ROW, flip, ints, opened, rows_of

from stillhouse.store.checksum import seal
from stillhouse.store.folder import view_path
from stillhouse.store.label_store import LabelStore

SAMPLES, VIEWS = 12, 3
IDS = st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=SAMPLES)
VIEW = st.integers(-1, VIEWS - 2)


class StoreMachine(RuleBasedStateMachine):
    """``may`` holds, for each key, the rows that may be found there; ``must``, the keys that have to be found."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.handles: list[LabelStore] = []
        self.may: dict[tuple[int, int], set[bytes]] = {}
        self.must: set[tuple[int, int]] = set()
        self.version = 0

    @initialize()
    def open_two(self) -> None:
        self.handles = [opened(self.root, SAMPLES) for _ in range(2)]

    @rule(ids=IDS, view=VIEW, which=st.integers(0, 1))
    def write(self, ids: list[int], view: int, which: int) -> None:
        """Write, or overwrite, by either handle."""
        self.version += 1
        at = np.full(len(ids), view)
        rows = rows_of(np.array(ids), at, self.version)
        rows[:, 1] += np.arange(len(ids), dtype=np.uint8)
        self.handles[which].write(np.array(ids), at, rows)
        for sample_id, row in zip(ids, rows, strict=True):
            self.may[sample_id, view] = {bytes(row)}
            self.must.add((sample_id, view))

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.handles[which].close()
        self.handles[which] = opened(self.root, SAMPLES)

    @precondition(lambda self: self.may)
    @rule(data=st.data())
    def flip_a_bit(self, data: st.DataObject) -> None:
        sample_id, view = data.draw(st.sampled_from(sorted(self.may)))
        if self._length(view) >= (sample_id + 1) * ROW:
            flip(self._file(view), sample_id * ROW * 8 + data.draw(st.integers(0, ROW * 8 - 1)))
        self.must.discard((sample_id, view))

    @rule(view=VIEW, share=st.floats(0, 1))
    def cut(self, view: int, share: float) -> None:
        """Cut a view's file at any byte."""
        length = int(share * self._length(view))
        if self._file(view).exists():
            os.truncate(self._file(view), length)
        self.must -= {key for key in self.must if key[1] == view and (key[0] + 1) * ROW > length}

    @rule(view=VIEW)
    def delete(self, view: int) -> None:
        self._file(view).unlink(missing_ok=True)
        self.must -= {key for key in self.must if key[1] == view}
        for key in self.may:
            self.may[key] = set() if key[1] == view else self.may[key]

    @rule(sample_id=st.integers(0, SAMPLES - 1), view=VIEW, first=st.integers(0, ROW), last=st.integers(0, ROW))
    def torn_write(self, sample_id: int, view: int, first: int, last: int) -> None:
        """A writer dies, and only some bytes of its row reach the file."""
        if not self._file(view).exists():
            return
        self.version += 1
        row = rows_of(ints(sample_id), ints(view), self.version)
        sealed = seal(row, ints(sample_id), ints(view), self.handles[0].manifest.identity.salt)
        first, last = sorted((first, last))
        with self._file(view).open("r+b") as file:
            file.seek(sample_id * ROW + first)
            file.write(sealed[0, first:last].tobytes())
        self.may.setdefault((sample_id, view), set()).add(bytes(row[0]))
        self.must.discard((sample_id, view))

    @rule(ids=IDS, data=st.data())
    def read_mixed(self, ids: list[int], data: st.DataObject) -> None:
        views = data.draw(st.lists(VIEW, min_size=len(ids), max_size=len(ids)))
        self._check(np.array(ids), np.array(views))

    @invariant()
    def whole(self) -> None:
        """Found is what was written; what was written and not damaged is found."""
        keys = np.array([(i, v) for i in range(SAMPLES) for v in range(-1, VIEWS - 1)])
        self._check(keys[:, 0].copy(), keys[:, 1].copy())

    def _check(self, ids: np.ndarray, views: np.ndarray) -> None:
        for handle in self.handles:
            rows, found = handle.read(ids, views)
            for key, row, there in zip(zip(ids.tolist(), views.tolist(), strict=True), rows, found, strict=True):
                assert bytes(row) in self.may.get(key, set()) if there else bytes(row) == bytes(PAYLOAD)
                assert there or key not in self.must, key

    def _file(self, view: int) -> Path:
        return view_path(self.handles[0].folder, view)

    def _length(self, view: int) -> int:
        return self._file(view).stat().st_size if self._file(view).exists() else 0

    def teardown(self) -> None:
        for handle in self.handles:
            handle.close()
        shutil.rmtree(self.root)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)

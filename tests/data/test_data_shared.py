"""Decoded samples mapped by another process: the same bits, read-only, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.data.shared import mapped, memory_of, told
from tests.data.test_data_table import Counted, built

READ = """
import json, sys
from stillhouse.data.shared import mapped
rows = mapped(json.loads(sys.argv[1]))
print(int(rows.sum()), rows.shape, rows.flags.writeable)
"""


@pytest.mark.parametrize("changes", [{}, {"memory_max_bytes": 10}])
def test_another_process_sees_the_rows(changes: dict[str, Any], tmp_path: Path) -> None:
    """A process that is told where the rows are maps the same bits and can't write them; no file has a name."""
    table = built(Counted(), tmp_path, shared=True, **changes)
    where = json.dumps(told(table.rows, table.descriptor))
    printed = subprocess.run([sys.executable, "-c", READ, where], capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[0] == f"{int(table.rows.sum())} {table.rows.shape} False"
    assert table.rows.tobytes() == built(Counted(), tmp_path).rows.tobytes()
    assert list(tmp_path.iterdir()) == []


def test_a_table_takes_its_memory_along(tmp_path: Path) -> None:
    """A table that is gone leaves no open file: the samples of one run don't stay until the process ends."""
    table = built(Counted(), tmp_path, shared=True)
    where = told(table.rows, table.descriptor)
    assert where is not None and Path(where["path"]).exists()
    del table
    assert not Path(where["path"]).exists()


def test_nothing_is_shared_unless_asked(tmp_path: Path) -> None:
    """A table that nobody is to map has no open file."""
    assert built(Counted(), tmp_path).descriptor is None
    assert told(np.zeros(3), None) is None


def test_what_is_not_there_is_not_mapped() -> None:
    """A place told from another machine, or by a process that is gone, gives nothing rather than something else."""
    rows, descriptor = memory_of((4, 3), np.dtype(np.uint8))
    where = told(rows, descriptor)
    assert where is not None
    assert mapped(None) is None
    assert mapped(where | {"shape": [5, 3]}) is None
    assert mapped(where | {"path": "/proc/1/fd/9999"}) is None
    found = mapped(where)
    assert found is not None and found.shape == (4, 3)


def test_a_system_without_such_files_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can't share memory, rows are ordinary ones."""
    monkeypatch.delattr("os.memfd_create")
    rows, descriptor = memory_of((4, 3), np.dtype(np.float32))
    assert descriptor is None and rows.shape == (4, 3) and not rows.any()

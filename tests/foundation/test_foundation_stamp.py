"""Which code this is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.foundation import stamp


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose code is stamped in place of the real one."""
    (tmp_path / "foundation").mkdir()
    (tmp_path / "foundation" / "stamp.py").write_text("one = 1\n")
    monkeypatch.setattr(stamp, "__file__", str(tmp_path / "foundation" / "stamp.py"))
    stamp.code_stamp.cache_clear()
    yield tmp_path
    stamp.code_stamp.cache_clear()


def test_the_stamp_is_that_of_the_first_call(package: Path) -> None:
    """Code that is changed later is not what this process runs; a new process has another stamp."""
    first = stamp.code_stamp()
    (package / "foundation" / "stamp.py").write_text("one = 2\n")
    assert stamp.code_stamp() == first
    stamp.code_stamp.cache_clear()
    assert stamp.code_stamp() != first


def test_an_editors_notes_are_no_code(package: Path) -> None:
    """Emacs marks a file that is being edited by a link to nowhere beside it."""
    first = stamp.code_stamp()
    (package / "foundation" / ".#stamp.py").symlink_to("someone@somewhere.1234")
    stamp.code_stamp.cache_clear()
    assert stamp.code_stamp() == first

"""What a search does about the collector's pauses."""

from __future__ import annotations

import gc

from stillhouse.foundation.garbage import settled


def test_what_is_there_is_left_alone_while_it_lasts() -> None:
    """A thousand lists are not looked through, and afterwards they are again."""
    before = [[] for _ in range(1000)]
    with settled():
        left_alone = gc.get_freeze_count() > len(before)
    assert left_alone
    assert gc.get_freeze_count() == 0
    assert any(each is before for each in gc.get_objects())

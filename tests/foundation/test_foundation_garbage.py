"""What a search does about the collector's pauses."""

from __future__ import annotations

import gc

from stillhouse.foundation.garbage import unswept


def test_what_is_there_is_left_alone_while_it_lasts() -> None:
    """A thousand lists are not looked through, and afterwards they are again; unless somebody else wanted them so."""
    before = [[] for _ in range(1000)]
    with unswept():
        left_alone = gc.get_freeze_count() > len(before)
        with unswept():
            pass
        still = gc.get_freeze_count() > len(before)
    assert left_alone and still
    assert gc.get_freeze_count() == 0
    assert any(each is before for each in gc.get_objects())

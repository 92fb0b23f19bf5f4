"""The pauses of Python's garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def unswept() -> Iterator[None]:
    """What is there is not looked through again while it lasts; what was left alone before stays so.

    With torch and its kind loaded a full pass takes a quarter of a second: as long as an epoch of a small network.
    """
    before = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not before:
            gc.unfreeze()

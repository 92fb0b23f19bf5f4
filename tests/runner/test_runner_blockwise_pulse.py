"""Workers that train blocks, in numbers."""

from __future__ import annotations

from stillhouse.foundation.block_events import BlockWorkerMeasured
from stillhouse.runner.blockwise.pulse import Pulse


def test_numbers_come_every_few_seconds() -> None:
    """Steps done and shares of the time that each was busy, since the event before; none sooner."""
    now_s = [0.0]
    pulse = Pulse("blocks", ["one", "two"], 7, lambda: now_s[0])
    now_s[0] = 1.0
    assert pulse.took("one", 7, 0.5) is None
    now_s[0] = 4.0
    told = pulse.took("two", 7, 4.0)
    assert told is not None and told.seconds == 4.0
    assert told.workers == (BlockWorkerMeasured(8, 0.125), BlockWorkerMeasured(8, 1.0))
    assert pulse.took("one", 8, 1.0) is None
    now_s[0] = 8.0
    told = pulse.took("one", 9, 1.5)
    assert told is not None and told.workers == (BlockWorkerMeasured(10, 0.25), BlockWorkerMeasured(8, 0.0))


def test_what_was_not_told_yet_is_told_at_the_end() -> None:
    """However short a stretch was; nothing, where nobody did anything since."""
    now_s = [0.0]
    pulse = Pulse("blocks", ["one"], 0, lambda: now_s[0])
    assert pulse.rest() is None
    now_s[0] = 0.5
    assert pulse.took("one", 0, 0.25) is None
    told = pulse.rest()
    assert told is not None and told.seconds == 0.5 and told.workers == (BlockWorkerMeasured(1, 0.5),)
    now_s[0] = 0.75
    assert pulse.rest() is None

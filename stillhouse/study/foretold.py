"""What a trial's value at a low rung foretells of the highest, so that trials of all rungs can be learnt from together.

From each rung to the next a line is fitted through the trials that have a value at both. Those that went on were the
best of their rung, which does no harm to a line that is fitted by that rung's values.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

_BELIEVED = 4
"""Few trials give wild slopes: a line is drawn as if so many more had kept all of their lead."""


def foretold(values: Sequence[Sequence[float]]) -> list[float | None]:
    """Each trial's value at the highest rung that any has reached: its own there, else what its last one foretells.

    Args:
        values: [trials][rungs that it has reached].

    Returns:
        [trials]; None where it has reached none.
    """
    highest = max(map(len, values), default=0)
    lines = [
        _line([(each[rung], each[rung + 1]) for each in values if len(each) > rung + 1]) for rung in range(highest - 1)
    ]
    found = list[float | None]()
    for each in values:
        if not each:
            found.append(None)
            continue
        value = each[-1]
        for start, slope in lines[len(each) - 1 :]:
            value = start + slope * value
        found.append(value)
    return found


def _line(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Start and slope: 0 to 1, for who is ahead may lose its lead, and gains none."""
    before, after = (statistics.fmean(each) for each in zip(*pairs, strict=True))
    spread = sum((x - before) ** 2 for x, _ in pairs)
    own = sum((x - before) * (y - after) for x, y in pairs) / spread if spread > 0 else 1.0
    slope = (len(pairs) * min(max(own, 0.0), 1.0) + _BELIEVED) / (len(pairs) + _BELIEVED)
    return after - slope * before, slope

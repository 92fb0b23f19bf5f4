"""Many workers on a search, simulated from the recorded times of its trainings: how busy they are.

Asynchronous halving as it is (``study.rungs``) decides what each free worker does; nothing else is simulated, so what
starting a worker or feeding it costs is left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from stillhouse.study.rungs import Standing, next_job


def share_of_ideal(
    accuracy: Sequence[Sequence[float]], seconds: Sequence[Sequence[float]], workers: int, reduction: int
) -> float:
    """Work done, against what so many workers could have done until the last of them was done.

    Args:
        accuracy: [trials][rungs]; also says how many there are.
        seconds: [trials][rungs] that the training from the rung before took.
    """
    values: list[list[float]] = []
    busy: dict[int, int] = {}
    now_s, work_s, free = 0.0, 0.0, workers
    ends: list[tuple[float, int, int]] = []
    while True:
        while free:
            standings = [Standing(number, tuple(each)) for number, each in enumerate(values)]
            job = next_job(standings, busy.keys(), len(accuracy), len(accuracy[0]), reduction)
            if job is None:
                break
            number = len(values) if job.trial is None else job.trial
            if job.trial is None:
                values.append([])
            took_s = seconds[number][job.rung]
            heapq.heappush(ends, (now_s + took_s, number, job.rung))
            busy[number] = job.rung
            work_s, free = work_s + took_s, free - 1
        if not ends:
            return work_s / (workers * now_s)
        now_s, number, rung = heapq.heappop(ends)
        values[number].append(accuracy[number][rung])
        del busy[number]
        free += 1

"""CPU time of this process and all that it started, however deep, also while they live; and cores.

Linux: read from ``/proc``. A process's own time and that of its children that were waited for are in its ``stat``; so
the sum over the processes that descend from this one now counts each that ever did once, unless its parent went first.
Elsewhere: of those it started, the ones that were waited for. Cost: one small file for each process of the machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class CpuTime(NamedTuple):
    """Core-seconds of work so far, and whose."""

    seconds: float
    whose: str


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_time(proc: Path = _PROC, root: int | None = None) -> CpuTime:
    """CPU time of a process and those it started; ``root``: its number, by default this one's."""
    root, told = root or os.getpid(), _told(proc)
    if root not in told:
        times = os.times()
        return CpuTime(sum(times[:4]), "this process and those of its children that ended")
    children: dict[int, list[int]] = {}
    for number, (parent, _) in told.items():
        children.setdefault(parent, []).append(number)
    ticks, waiting = 0, [root]
    while waiting:
        number = waiting.pop()
        ticks += told[number][1]
        waiting += children.get(number, ())
    return CpuTime(ticks / os.sysconf("SC_CLK_TCK"), "this process and its children")


def _told(proc: Path) -> dict[int, tuple[int, int]]:
    """Of each process: its parent, and ticks of its own and of the children that it waited for."""
    found = {}
    for folder in proc.glob("[0-9]*"):
        try:
            # Its name stands in brackets and may hold anything.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            found[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15]))
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
    return found

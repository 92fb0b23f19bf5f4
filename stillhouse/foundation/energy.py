"""Energy of a stretch of a run, and where the figure comes from.

*measured*: the processor's own counter (Intel and AMD RAPL, through ``/sys/class/powercap``), packages
only: memory, disks and accelerators are not in it. *unavailable*: no counter may be read here (most virtual
machines and containers); then there is no figure, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Energy:
    """Joules over a stretch, ``None`` where unavailable; ``source`` says what was read."""

    joules: float | None
    source: str


class EnergyMeter:
    """Counts from its making to :meth:`read`, across wrap-arounds of the counters between reads."""

    def __init__(self, powercap: Path = _POWERCAP) -> None:
        self._zones = [zone for zone in sorted(powercap.glob("*-rapl:*")) if zone.name.count(":") == 1]
        self._last = {zone: value for zone in self._zones if (value := _number(zone / "energy_uj")) is not None}
        self._microjoules = 0

    def read(self) -> Energy:
        """Energy since the meter was made. Call it at least once a minute on a busy machine: counters wrap."""
        for zone, before in self._last.items():
            now = _number(zone / "energy_uj")
            if now is None:
                return Energy(None, "unavailable: the RAPL counter became unreadable")
            wrap = _number(zone / "max_energy_range_uj") or 0
            self._microjoules += now - before if now >= before else now + wrap - before
            self._last[zone] = now
        if not self._last:
            reason = "RAPL may not be read by this user" if self._zones else "no RAPL counter here"
            return Energy(None, f"unavailable: {reason}")
        return Energy(self._microjoules / 1e6, "measured: RAPL, processor packages")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None

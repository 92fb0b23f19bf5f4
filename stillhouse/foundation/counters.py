"""Counters of energy that hardware keeps: the processor's (RAPL) and the GPUs' (NVML).

RAPL is Intel's and AMD's, read through ``/sys/class/powercap``: packages only, since the counter of the whole platform
(``psys``) holds them once more and those below a package are parts of it. It wraps after some 10^5 joules. NVML counts
millijoules since the driver was loaded, on GPUs from Volta on, the board's memory included.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_POWERCAP = Path("/sys/class/powercap")


class Reading(NamedTuple):
    """What one part of a machine used: joules, and of what; or None, and why."""

    joules: float | None
    words: str


class Part(Protocol):
    """One part of a machine, counted from when this was made."""

    def read(self) -> Reading:
        """Joules so far; None for good once it could not be read: what was used meanwhile is not known."""
        ...


class Uncounted:
    """A part that nobody counts; ``words`` name it."""

    def __init__(self, words: str) -> None:
        self._words = words

    def read(self) -> Reading:
        """As of :class:`Part`: never a figure."""
        return Reading(None, self._words)


class Rapl:
    """All packages of the machine, counted from when this was made, across wrap-arounds between reads."""

    def __init__(self, powercap: Path = _POWERCAP) -> None:
        found = [zone for zone in sorted(powercap.glob("*-rapl:*")) if zone.name.count(":") == 1]
        self._zones = [zone for zone in found if _text(zone / "name") != "psys"]
        self._last = {zone: value for zone in self._zones if (value := _number(zone / "energy_uj")) is not None}
        self._microjoules = 0
        self._why = "" if len(self._last) == len(self._zones) > 0 else _why(self._zones)

    def read(self) -> Reading:
        """Joules so far; none once a counter could not be read, since what it counted meanwhile is not known."""
        for zone, before in self._last.items():
            now = _number(zone / "energy_uj")
            if now is None:
                self._why = self._why or "the RAPL counter became unreadable"
                continue
            range_ = _number(zone / "max_energy_range_uj")
            if now < before and range_ is None:
                self._why = self._why or "the RAPL counter wrapped, and after how much can't be read"
            self._microjoules += now - before if now >= before else now + (range_ or 0) - before
            self._last[zone] = now
        if self._why:
            return Reading(None, f"the processor: {self._why}")
        return Reading(self._microjoules / 1e6, "processor packages (RAPL)")


class Gpus:
    """GPUs together, counted from when this was made.

    Args:
        uuids: of each, as in ``nvidia-smi -L``: ``GPU-...``.
        nvml: the module ``pynvml``, or what answers like it; None: loaded if it is installed.
    """

    def __init__(self, uuids: Sequence[str], nvml: Any = None) -> None:
        self._last: dict[str, tuple[Any, int]] = {}
        self._nvml, self._names, self._why = nvml, dict[str, str](), ""
        self._millijoules = 0
        try:
            self._nvml = nvml or importlib.import_module("pynvml")
        except ImportError:
            self._why = "nvidia-ml-py is not installed (pip install 'stillhouse[gpu-energy]')"
            return
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self._why = f"NVML can't be used here: {error}"
            return
        for uuid in dict.fromkeys(uuids):
            self._open(uuid)

    def read(self) -> Reading:
        """As of :class:`Part`."""
        for uuid, (handle, before) in self._last.items():
            now = self._count(uuid, handle)
            if now is not None and now < before:
                self._why = self._why or "NVML's counter began anew (the driver was loaded again)"
            elif now is not None:
                self._millijoules += now - before
                self._last[uuid] = handle, now
        if self._why:
            return Reading(None, f"the GPU: {self._why}")
        return Reading(self._millijoules / 1e3, f"{' + '.join(self._names.values())} (NVML)")

    def _open(self, uuid: str) -> None:
        try:
            handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
            name = self._nvml.nvmlDeviceGetName(handle)
        except self._nvml.NVMLError as error:
            self._why = self._why or f"NVML does not know {uuid}: {error}"
            return
        self._names[uuid] = name.decode() if isinstance(name, bytes) else str(name)
        if (count := self._count(uuid, handle)) is not None:
            self._last[uuid] = handle, count

    def _count(self, uuid: str, handle: Any) -> int | None:
        """Millijoules; None, with a reason, where they can't be read."""
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except self._nvml.NVMLError as error:
            lacks = getattr(error, "value", None) == self._nvml.NVML_ERROR_NOT_SUPPORTED
            why = f"{self._names[uuid]} has no counter of energy (none before Volta has, nor a slice of one)"
            self._why = self._why or (
                why if lacks else f"NVML's counter of {self._names[uuid]} became unreadable: {error}"
            )
            return None


def _why(zones: list[Path]) -> str:
    """Why not all counters can be read."""
    if not zones:
        return "no RAPL counter here (most virtual machines have none)"
    unread = next(zone for zone in zones if _number(zone / "energy_uj") is None)
    if not unread.exists():
        return f"{unread} leads nowhere (containers hide RAPL)"
    if not (unread / "energy_uj").exists():
        return f"{unread} has no energy_uj"
    return f"{unread / 'energy_uj'} may not be read by this user (root may allow it: chmod a+r)"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None

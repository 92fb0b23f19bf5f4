"""Numbers as people read them: 1.2 M, 3.4 MB, 0.42 ms, 97.8 %. A missing one is a dash, never a zero.

Three significant digits are kept, since nothing that a run measures is known better. Bytes are decimal (1 kB = 1000 B).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


def dig(values: Any, *keys: str) -> Any:
    """``values[a][b]...``, or None as soon as something on the way is missing."""
    for key in keys:
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values


def figure(values: Any, *keys: str) -> float | None:
    """Like :func:`dig`, for a finite number; anything else is None."""
    found = dig(values, *keys)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


def listed(values: Any, *keys: str) -> list[Any]:
    """Like :func:`dig`, for a list; anything else is an empty one."""
    found = dig(values, *keys)
    return list(found) if isinstance(found, list | tuple) else []


def three_digits(value: float) -> str:
    """Three significant digits without an exponent: 1234.5 -> 1,234; 12.34 -> 12.3; 0.0421 -> 0.0421."""
    if value == 0:
        return "0"
    value = float(f"{value:.3g}") if abs(value) < 1000 else value
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(places, 9)}f}"
    return text if abs(value) >= 1 or places > 9 else text.rstrip("0").rstrip(".") or "0"


def scaled(value: float | None, units: tuple[str, ...]) -> str:
    """A number with the unit (each 1000 of the one before) that keeps it below 1000."""
    if value is None:
        return MISSING
    index = 0
    while abs(value) >= 999.5 and index < len(units) - 1:
        value, index = value / 1000, index + 1
    number = f"{value:.0f}" if index == 0 and value == int(value) else three_digits(value)
    return f"{number} {units[index]}".rstrip()


def count(value: float | None) -> str:
    """1,234,567 -> 1.23 M."""
    return scaled(value, ("", "k", "M", "G", "T"))


def size(value: float | None) -> str:
    """Bytes: 3,400,000 -> 3.40 MB."""
    return scaled(value, ("B", "kB", "MB", "GB", "TB"))


def energy(value: float | None) -> str:
    """Joules: 1234 -> 1.23 kJ."""
    return scaled(value, ("J", "kJ", "MJ", "GJ"))


def milliseconds(value: float | None) -> str:
    """0.42 -> 0.42 ms; 1500 -> 1.50 s."""
    if value is not None and value < 0.1:
        return f"{three_digits(value * 1000)} \N{MICRO SIGN}s"
    return scaled(value, ("ms", "s"))


def seconds(value: float | None) -> str:
    """0.012 -> 12 ms; 52.1 -> 52.1 s; 192 -> 3 min 12 s; 8040 -> 2 h 14 min."""
    if value is None:
        return MISSING
    if 0 < value < 0.1:
        return f"{1000 * value:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(value: float | None, digits: int = 1) -> str:
    """0.978 -> 97.8 %."""
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None) -> str:
    """A difference of two shares: 0.019 -> +1.9 points."""
    if value is None:
        return MISSING
    text = f"{abs(100 * value):.1f}"
    sign = "±" if float(text) == 0 else "+" if value > 0 else MINUS
    return f"{sign}{text} points"


def grouped(value: float | None) -> str:
    """1222 -> 1,222."""
    return MISSING if value is None else f"{value:,.0f}"

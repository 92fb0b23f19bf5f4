"""Kinds of replacements as a reader meets them: a colour each, the same in every figure, and their names in words."""

from __future__ import annotations

from collections.abc import Iterable

COLOUR_OF = {
    "separable": "teacher",
    "inverted": "evaluate",
    "grouped": "store",
    "low_rank": "data",
    "slimmer": "student",
    "shallower": "other",
    "skip": "checkpoint",
}


def kind_of(name: str) -> str:
    """``low_rank-4`` is a ``low_rank``."""
    return name.partition("-")[0]


def colour_of(name: str) -> str:
    """The colour of a replacement; those that nobody knows share one."""
    return COLOUR_OF.get(kind_of(name), "muted")


def words_of(name: str) -> str:
    """``low_rank-4`` is "low rank, 4"."""
    kind, _, factor = name.partition("-")
    return kind.replace("_", " ") + (f", {factor}" if factor else "")


def legend(names: Iterable[str]) -> list[tuple[str, str]]:
    """(colour, words) of the kinds among some replacements, in the order of the library."""
    found = {kind_of(name) for name in names}
    return [(colour, words_of(kind)) for kind, colour in COLOUR_OF.items() if kind in found]

"""Words of others (a worker, a library, a file's name) made fit for a terminal."""

from __future__ import annotations

import re

_UNFIT = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Sequences that colour and move, then what is left of control characters; halves of pairs, which can't be encoded."""


def printable(text: str) -> str:
    """The text without what a terminal would obey; lines and tabs stay."""
    return _UNFIT.sub("", text)

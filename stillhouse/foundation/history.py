"""What happened in a run, read back from its file of events, also while it grows.

A killed run may leave a torn last line and, after a resume, a few steps told twice: the first is dropped, of the
second the later telling is kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a run in order; where a resumed phase told steps again, their later telling only."""
    if not path.exists():
        return []
    kept: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["event"] == "PhaseStarted":
            kept = [each for each in kept if not _told_again(each, record)]
        kept.append(record)
    return kept


def _told_again(record: dict[str, Any], started: dict[str, Any]) -> bool:
    """Whether a record is about steps that the phase, started (again) at ``started``, will tell anew."""
    about_steps = record["event"] in ("Progress", "ReplacementTrained", "Evaluated")
    return about_steps and record["phase"] == started["phase"] and record["step"] > started["step"]

"""Why Ray says that an actor is no more, in one clause: its own stories fill a screen. Ray itself is not loaded."""

from __future__ import annotations

import re

_WORDS_MAX = 160
_CLAUSES = (
    (r"was killed by `ray\.kill`", "ended by ray.kill"),
    (r"owner has died", "the run's process died"),
    (r"running low on memory|memory pressure|OutOfMemory", "killed: its machine ran out of memory"),
    (r"node was terminated expectedly", "its node was drained"),
    (r"health check failed", "its node died: it no longer answered Ray"),
    (r"node has died|node was terminated", "its node died"),
    (r"connection error code", "its process died: killed, out of memory, or crashed"),
    (r"actor is (temporarily )?unavailable", "Ray no longer reaches it"),
    (r"worker startup repeatedly failed", "no process could be started for it on its node"),
    (r"all references to the actor were removed", "the run let go of it"),
)
_TELLING = (re.compile(r"Worker exit detail: (.+?)(?:\. |$)"), re.compile(r"because (.+?)(?:\. |$)"))
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def in_a_clause(story: str) -> str:
    """How an actor ended, of what Ray tells; of a story that is not known its most telling sentence."""
    text = " ".join(_COLOURS.sub("", story).split())
    for pattern, clause in _CLAUSES:
        if re.search(pattern, text):
            return clause
    told = next((found[1] for pattern in _TELLING if (found := pattern.search(text))), text)
    return told.rstrip(".")[:_WORDS_MAX]

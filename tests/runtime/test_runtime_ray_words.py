"""What Ray says of an actor's end, in a clause; its own texts, as it tells them."""

from __future__ import annotations

import pytest

from stillhouse.runtime.ray_words import in_a_clause

DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: TeacherActor
\tactor_id: 7cc9e4ed8a1b9e45a1f4d5b801000000
\tpid: 4711
\tnamespace: 12c9-77
\tip: 127.0.0.1
"""
PROCESS = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed."
)
NODE = (
    "The actor died because its node has died. Node Id: 5f1d\n\tthe actor's node was terminated unexpectedly: health "
    "check failed due to missing too many heartbeats"
)


@pytest.mark.parametrize(
    ("story", "clause"),
    [
        (PROCESS, "its process died: killed, out of memory, or crashed"),
        (NODE, "its node died: it no longer answered Ray"),
        ("The actor is dead because it was killed by `ray.kill`.", "ended by ray.kill"),
        (
            "The actor is dead because its worker process has died. Worker exit type: USER_ERROR Worker exit detail: "
            "Worker exits with an exit code 7. More.",
            "Worker exits with an exit code 7",
        ),
    ],
)
def test_a_story_is_one_clause(story: str, clause: str) -> None:
    """Neither ids nor advice: what happened, in words that stand in a table's cell."""
    assert in_a_clause(DIED + story) == clause


def test_an_unknown_story_is_cut() -> None:
    """What Ray may say tomorrow is shown, but no screen of it."""
    assert in_a_clause("Something new happened. " * 100).startswith("Something new happened.")
    assert len(in_a_clause("Something new happened. " * 100)) <= 160

"""Which Stillhouse this is: processes that shall understand one another compare it before they say anything else."""

from __future__ import annotations

import functools
import hashlib
from importlib.metadata import version
from pathlib import Path

_DIGITS = 12


@functools.cache
def code_stamp() -> str:
    """The version, and a digest of the package's code as it lay here at the first call: ``0.1.0 (3f2a...)``."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("[!.]*.py")):  # an editor's notes begin with a dot, and may be no files
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
    return f"{version('stillhouse')} ({digest.hexdigest()[:_DIGITS]})"


def otherwise(theirs: str) -> str:
    """What to say to whoever has another one: "" where it is the same.

    Args:
        theirs: their stamp.
    """
    if theirs == code_stamp():
        return ""
    return f"there stillhouse is {theirs}, here {code_stamp()}: install the very same on all machines"

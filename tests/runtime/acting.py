"""What the workers of the conformance suite do: they load as their job says, and each loan's payload is its script.

    size N BYTE    N bytes, all the same
    echo TEXT      the text
    fail TEXT      an error
    wait S         sleeps first, then echoes
    vanish         the process ends in the middle
    starve         no memory is left for it

As a program, a worker of the local backend: ``python acting.py ADDRESS [NAME]``. Other backends play the same
functions.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from stillhouse.foundation.errors import UserError
from stillhouse.runtime.local.serving import Served, serve


class Role(NamedTuple):
    """How a worker is; ``loading``: well, long (a minute), refuses (our error), crashes (another's), dies; ``proof``:
    so many bytes that it shows.
    """

    slots: int = 4
    loading: str = "well"
    proof: int = 0


FACTS = {"part": "actor", "pace_s": 0.001}
EXCUSE = "the teacher's weights are not here"
LAST_WORDS = "no bytes left in the whole house"


def load(role: Role) -> None:
    """Play the loading."""
    if role.loading == "long":
        time.sleep(60)
    if role.loading == "refuses":
        raise UserError(EXCUSE)
    if role.loading == "crashes":
        raise ValueError(EXCUSE)
    if role.loading == "dies":
        print(LAST_WORDS, file=sys.stderr, flush=True)
        os._exit(3)


def seconds_of(payload: bytes) -> float:
    """How long a loan takes."""
    verb, _, rest = payload.decode().partition(" ")
    return float(rest) if verb == "wait" else 0.0


def act(payload: bytes) -> bytes:
    """The answer to a loan, without the time that it takes."""
    verb, _, rest = payload.decode().partition(" ")
    if verb == "size":
        nbytes, fill = map(int, rest.split())
        # Zeros take no memory until they are read.
        return bytes([fill]) * nbytes if fill else bytes(nbytes)
    if verb == "fail":
        raise RuntimeError(rest)
    if verb == "starve":
        raise MemoryError("Unable to allocate 3.00 GiB")
    return rest.strip().encode()


def prepare(job: Mapping[str, Any]) -> Served:
    role = Role(**job)
    load(role)

    def answer(payload: bytes) -> bytes:
        if payload == b"vanish":
            os._exit(9)
        time.sleep(seconds_of(payload))
        return act(payload)

    return Served(FACTS, role.slots, answer, b"p" * role.proof)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], prepare, name=(sys.argv[2:] or [None])[0]))

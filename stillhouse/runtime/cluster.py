"""Which Ray cluster is meant, and whether it answers: tried before anything waits for it. Ray itself is not loaded.

Ray's own way in takes minutes to see that nobody is there, hears no Ctrl-C meanwhile, and ends the process where a
token is missing. So the address is tried by TCP first, then by Ray's own command, in a process that can be ended.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stillhouse.foundation.errors import UserError

RAY = (sys.executable, "-P", "-m", "ray.scripts.scripts")
"""The command ``ray`` of this environment, wherever that is."""

INLINE = "max_direct_call_object_size"
INLINE_BYTES = 2**22
"""Answers up to this size come with Ray's reply instead of through its object store, for half of the CPU time. Said to
each machine's ``ray start`` as ``RAY_max_direct_call_object_size``."""

_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[\w.:%]+\]):(\d+)")
_CONNECT_S = 5.0
_TRIAL_S = 20.0
_LOOK_S = 0.05
_PAUSE_S = 5.0
_QUICK = {"RAY_py_gcs_connect_timeout_s": "3", "RAY_gcs_rpc_server_connect_timeout_s": "3"}
_NO_TOKEN = ("AuthenticationError", "authentication token")
_OTHER_RAY = re.compile(r"cluster has Ray version (\S+) but local Ray version is (\S+)")


def find(check: Callable[[], None] = lambda: None, trials: int = 1) -> str:
    """The cluster to connect to, as ``ray.init`` wants it: the one that ``RAY_ADDRESS`` names, else the one that was
    started on this machine last and answers, else ``local``, a new one.

    Args:
        check: called while it is waited for; ends that by what it raises.
        trials: how often one that does not answer is tried; more than once where hours of work wait for it.

    Raises:
        UserError: the one that is named can't be used; says why.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named and not looks_like_one(named):
        return named  # 'local', 'auto': Ray's own words
    address = named or _started_last()
    if not address:
        return "local"
    for left in reversed(range(trials)):
        try:
            try_out(address, check)
            break
        except UserError as error:
            if isinstance(error, _NobodyError) and not named:
                return "local"
            if not left or not isinstance(error, _SilentError):
                raise UserError(f"{error}{way_out()}") from error
        _pause(check)
    return address


def way_out() -> str:
    """What else can be said to a person who named no cluster, to be put behind what they are told."""
    return "" if os.environ.get("RAY_ADDRESS") else "; or say RAY_ADDRESS=local for a cluster of this machine alone"


def looks_like_one(address: str) -> bool:
    """Whether this is host:port."""
    return _HOST_AND_PORT.fullmatch(address) is not None


def try_out(address: str, check: Callable[[], None] = lambda: None) -> None:
    """See whether the head of a cluster listens at host:port and lets this side in. One that is too slow to say so may:
    Ray itself, which waits longer, finds that out.

    Raises:
        UserError: it does not; says what to do.
    """
    match = _HOST_AND_PORT.fullmatch(address)
    assert match is not None
    if not 0 < int(match[2]) < 2**16:
        raise UserError(f"{address}: ports are from 1 to 65535; a Ray head listens at 6379 if nobody said otherwise")
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=_CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        raise _NobodyError(
            f"no Ray cluster can be reached at {address} ({getattr(error, 'strerror', None) or error}): start its "
            "head, or give the address that it told (host:port; RAY_ADDRESS for a run; without it a run starts its own)"
        ) from error
    check()
    said = _health(address, check)
    if said is None:
        return
    if any(words in said for words in _NO_TOKEN):
        raise UserError(
            f"the Ray cluster at {address} does not know this side's token: every machine needs RAY_AUTH_MODE=token "
            "and the head's token, in ~/.ray/auth_token or RAY_AUTH_TOKEN ('ray get-auth-token' there tells it)"
        )
    if other := _OTHER_RAY.search(said):
        raise UserError(
            f"the Ray cluster at {address} has Ray {other[1]}, and here is {other[2]}: install the same on all machines"
        )
    raise _SilentError(
        f"something listens at {address} that does not answer as the head of a Ray cluster: give the head's own port "
        "(6379 if nobody said otherwise), not that of its dashboard or of another service"
    )


class _SilentError(UserError):
    """Nobody answers there."""


class _NobodyError(_SilentError):
    """Nobody listens there."""


def _pause(check: Callable[[], None]) -> None:
    end_s = time.monotonic() + _PAUSE_S
    while time.monotonic() < end_s:
        check()
        time.sleep(_LOOK_S)


def _started_last() -> str:
    """What Ray wrote down where a head or node was started on this machine; that may have ended since."""
    place = os.environ.get("RAY_TMPDIR") or (os.environ.get("TMPDIR") if sys.platform == "linux" else "") or "/tmp"
    try:
        address = (Path(place) / "ray" / "ray_current_cluster").read_text().strip()
    except OSError:
        return ""
    return address if looks_like_one(address) else ""


def _health(address: str, check: Callable[[], None]) -> str | None:
    """What Ray's own command says against a cluster; None: nothing, or not in time."""
    environment = {"RAY_AUTH_MODE": "token", **_QUICK, **os.environ}
    with tempfile.TemporaryFile() as said:
        command = [*RAY, "health-check", "--address", address]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
        try:
            end_s = time.monotonic() + _TRIAL_S
            while process.poll() is None and time.monotonic() < end_s:
                check()
                time.sleep(_LOOK_S)
            check()
            slow = process.poll() is None
        finally:
            process.kill()
            code = process.wait()
        said.seek(0)
        # Where nobody speaks Ray's language the command itself says so, in half of the time.
        return None if slow or code == 0 else said.read().decode(errors="replace")

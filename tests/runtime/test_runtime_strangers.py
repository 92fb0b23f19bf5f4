"""Who comes in by the front door and should not: talkers of nonsense, breakers of rules, other users, the silent."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.errors import UserError
from stillhouse.runtime.backend import Answer, Hello, Left
from stillhouse.runtime.local.backend import LocalBackend
from stillhouse.runtime.local.door import connected
from stillhouse.runtime.local.frames import PROTOCOL, pack
from stillhouse.runtime.local.serving import serve

from .house import HELLO, LOAN, READY, House, hung_up_on, knock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_another_protocol(house: House) -> None:
    """Who speaks another protocol is told to install the same stillhouse."""
    guest = knock(house, {**HELLO, "protocol": PROTOCOL + 1})
    assert "install the same stillhouse" in house.warning()
    assert b"install the same stillhouse" in guest.recv(4096)
    assert hung_up_on(guest)


NONSENSE = {
    "huge header": struct.pack("!II", 2**32 - 1, 0),
    "body before hello": pack(HELLO, 100),
    "not JSON": struct.pack("!II", 4, 0) + b"\x80\x04K.",
    "deep": struct.pack("!II", 10**5, 0) + b"[" * 10**5,
    "no hello": pack({"do": "answer", "lease": ["s", 0, 1]}),
    "hello of another kind": pack({"do": "hello", "protocol": [1]}),
}


@pytest.mark.parametrize("words", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_at_the_door(house: House, words: bytes) -> None:
    """Who begins with nonsense is hung up on with a warning; the next guest comes in."""
    guest = knock(house)
    guest.sendall(words)
    assert house.warning()
    assert hung_up_on(guest)
    with knock(house, HELLO, READY):
        assert isinstance(house.first(), Hello)


RULES = {
    "an answer to nothing": {"do": "answer", "lease": ["s", 9, 1]},
    "an answer without a lease": {"do": "answer"},
    "an answer beyond its slot": {"do": "answer", "lease": list(LOAN), "nbytes": 2**40},
    "an answer that took no time that there is": {"do": "answer", "lease": list(LOAN), "spent_s": -1.0},
    "an answer that took longer than any number": {"do": "answer", "lease": list(LOAN), "spent_s": 10**400},
    "an answer of negative length": {"do": "answer", "lease": list(LOAN), "nbytes": -1},
    "ready twice": READY,
    "an unknown verb": {"do": "dance"},
    "a failure that is no text": {"do": "failure", "lease": list(LOAN), "why": 5},
}


@pytest.mark.parametrize("message", RULES.values(), ids=RULES)
def test_a_worker_that_breaks_the_rules(house: House, message: dict[str, Any]) -> None:
    """A worker that sends what makes no sense loses its connection, with a reason; the others go on."""
    (other,) = house.stage.ready()
    with knock(house, HELLO, READY) as guest:
        rogue = house.first()
        assert isinstance(rogue, Hello)
        house.backend.send(rogue.worker, LOAN, b"echo x")
        guest.sendall(pack(message))
        left = house.first()
        assert isinstance(left, Left) and left.worker == rogue.worker and left.why.startswith("sent ")
    house.backend.send(other.worker, LOAN, b"echo x")
    answer = house.first()
    assert isinstance(answer, Answer) and answer[:3] == (other.worker, LOAN, b"x")


@pytest.mark.parametrize("who", [{"pid": "1"}, {"pid": -1}, {"pid": True}, {"host": 7}, {"stillhouse": []}])
def test_who_makes_no_sense(house: House, who: dict[str, Any]) -> None:
    """A worker whose process number, machine or version can be none never gets ready."""
    with knock(house, {**HELLO, **who}, READY):
        assert "left before it was ready: sent 'hello' with" in house.warning()


@pytest.mark.parametrize("ready", [{"slots": 0}, {"slots": 10**9}, {"slots": "2"}, {"facts": []}])
def test_facts_that_make_no_sense(house: House, ready: dict[str, Any]) -> None:
    """A worker without sensible slots and facts never gets ready."""
    with knock(house, HELLO, {**READY, **ready}):
        assert "left before it was ready: sent" in house.warning()


def test_a_child_that_breaks_the_rules() -> None:
    """A worker of our own that talks nonsense is ended, with that as the reason."""
    code = (
        "import socket, sys, time; from stillhouse.runtime.local.frames import pack; "
        "guest = socket.socket(socket.AF_UNIX); guest.connect(sys.argv[1]); "
        f"guest.sendall(pack({{**{HELLO}, 'name': sys.argv[2]}}) + pack({{'do': 'dance'}})); time.sleep(60)"
    )
    backend = LocalBackend({}, [sys.executable, "-c", code], print)
    name = backend.start()
    reports = backend.poll(20)
    backend.close()
    assert reports == [Left(name, "sent 'dance', which is not expected now")]


def test_silent_guests_stop_nobody(house: House) -> None:
    """Guests that say nothing, or half a word, keep nobody from working; who only looks in is no warning."""
    guests = [knock(house) for _ in range(20)]
    for guest in guests[:10]:
        guest.sendall(b"\0\0")
    knock(house).close()
    (worker,) = house.stage.ready()
    house.backend.send(worker.worker, LOAN, b"echo x")
    assert isinstance(house.first(), Answer)
    for guest in guests:
        guest.close()
    assert house.backend.poll(0.1) == []
    assert house.warned == []


STRANGER = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
guest.settimeout(5)
guest.connect(sys.argv[1])
try:
    sys.exit(len(guest.recv(100)))
except ConnectionResetError:
    sys.exit(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_hung_up_on(house: House) -> None:
    """The folder keeps other users out; should it be opened, they are hung up on and told in a warning."""
    folder = Path(house.backend.address).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    command = [sys.executable, "-I", "-S", "-c", STRANGER, house.backend.address]
    assert b"Permission denied" in subprocess.run(command, check=False, capture_output=True).stderr
    folder.chmod(0o755)
    Path(house.backend.address).chmod(0o777)
    with subprocess.Popen(command) as stranger:
        assert "user 65534 tried to join" in house.warning()
        assert stranger.wait(10) == 0


@pytest.mark.parametrize("credentials", [True, False], ids=["of the peer", "of the file"])
def test_nobody_joins_another_user(house: House, monkeypatch: pytest.MonkeyPatch, credentials: bool) -> None:
    """Where another user listens nobody goes in: not a byte is said, and whose door it is is told."""
    if not credentials:
        monkeypatch.delattr(socket, "SO_PEERCRED")
    connected(house.backend.address).close()
    listener = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: listener + 1)
    with pytest.raises(UserError, match=f"user {listener} listens at {house.backend.address}"):
        serve(house.backend.address, lambda job: pytest.fail("it was given a job"))
    monkeypatch.undo()
    assert house.backend.poll(0.1) == [] and house.warned == []

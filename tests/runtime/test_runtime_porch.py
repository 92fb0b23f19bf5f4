"""Who knocks and says nothing: bounded in number and time, and nobody is ended for time in which nobody listened."""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from stillhouse.runtime import gaps
from stillhouse.runtime.backend import Hello
from stillhouse.runtime.gaps import Gaps
from stillhouse.runtime.local import backend as local_backend
from stillhouse.runtime.local import crew as local_crew
from stillhouse.runtime.local import porch
from stillhouse.runtime.local.backend import LocalBackend
from stillhouse.runtime.local.crew import Came, Entrance, LocalCrew
from stillhouse.runtime.local.frames import PROTOCOL, pack
from stillhouse.runtime.tcp_door import TcpDoor, reached

from .acting import Role
from .stages import COMMAND

HELLO = {"do": "hello", "protocol": PROTOCOL}


class Gate:
    """The students' door as a run has it on a cluster."""

    def __init__(self, host: str) -> None:
        self.warned: list[str] = []
        self.door = TcpDoor(host)
        self.entrance = Entrance(self.door, self._welcome, self.warned.append)

    def _welcome(self, hello: dict[str, Any]) -> str:
        self.door.check(hello)
        return "friend"

    def knock(self, *words: bytes) -> socket.socket:
        """Somebody who says something, or nothing."""
        guest = reached(self.door.address)
        assert guest is not None
        guest.settimeout(5)
        for each in words:
            guest.sendall(each)
        return guest

    def lets_a_friend_in(self) -> bool:
        """Whether who knows the token comes in now."""
        with self.knock(pack({**HELLO, "token": self.door.token})):
            end_s = time.monotonic() + 10
            while time.monotonic() < end_s:
                if any(isinstance(each, Came) for each in self.entrance.poll(0.2)):
                    return True
        return False

    def hung_up_on(self, guest: socket.socket) -> bool:
        """Whether nothing comes but the end."""
        for _ in range(50):
            self.entrance.poll(0.1)
            if select.select([guest], [], [], 0)[0]:
                return guest.recv(1) == b""
        return False


@pytest.fixture(params=["127.0.0.1", "::1"])
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    if ":" in request.param:
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind((request.param, 0))
            except OSError:
                pytest.skip("this machine has no IPv6")
    one = Gate(request.param)
    yield one
    one.entrance.close()


STRANGE = {
    "half a character": {**HELLO, "token": "\ud800"},
    "a number": {**HELLO, "token": 1},
    "no token": HELLO,
    "other words": {"do": "[/boo]", "token": 1},
    "another protocol": {"do": "hello", "protocol": "[/boo]"},
}


@pytest.mark.parametrize("hello", STRANGE.values(), ids=STRANGE)
def test_a_stranger_is_sent_away_and_not_quoted(gate: Gate, hello: dict[str, Any]) -> None:
    """Whatever somebody without the token says, it is hung up on and told of once, and a friend comes in."""
    for _ in range(3):
        with gate.knock(pack(hello)) as stranger:
            assert gate.hung_up_on(stranger)
    assert len(gate.warned) == 1 and "boo" not in gate.warned[0]
    assert gate.lets_a_friend_in()


def test_silent_strangers_are_few(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who say nothing the oldest is hung up on when there are too many, and any when its time is up."""
    monkeypatch.setattr(porch, "STRANGERS_MAX", 4)
    with ExitStack() as stack:
        silent = [stack.enter_context(gate.knock()) for _ in range(6)]
        assert gate.hung_up_on(silent[0]) and gate.hung_up_on(silent[1])
        assert not select.select(silent[2:], [], [], 0)[0]
        assert gate.lets_a_friend_in(), "by sending one more away"
        assert gate.hung_up_on(silent[2])
        monkeypatch.setattr(time, "monotonic", lambda before=time.monotonic: before() + porch.HELLO_S)
        gate.entrance._gaps = Gaps(time.monotonic)
        assert all(gate.hung_up_on(each) for each in silent[3:])
    assert gate.warned == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts its descriptors in /proc")
def test_without_descriptors_a_door_is_left_alone() -> None:
    """Who can't be let in for want of descriptors keeps nobody busy, and comes in when there are some again."""
    warned: list[str] = []
    backend = LocalBackend({}, None, warned.append)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as guest:
        used = max(int(each) for each in os.listdir("/proc/self/fd")) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, limits[1]))
        spare: list[int] = []
        try:
            with suppress(OSError):
                while True:
                    spare.append(os.dup(0))
            guest.connect(backend.address)
            begun_s = time.thread_time()
            for _ in range(5):
                backend.poll(0.25)
            busy_s = time.thread_time() - begun_s
        finally:
            for each in spare:
                os.close(each)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        hello = {**HELLO, "stillhouse": "0", "pid": 1, "host": "h", "fds": False, "name": ""}
        guest.sendall(pack(hello) + pack({"do": "ready", "facts": {}, "slots": 1}))
        reports = backend.poll(10)
        backend.close()
    assert busy_s < 0.3
    assert len(warned) == 1 and "Too many open files" in warned[0]
    assert [type(each) for each in reports] == [Hello]


def wait_for_a_knock(house: LocalBackend | LocalCrew) -> None:
    """Somebody stands before the door, unheard, for longer than there is time to say hello."""
    assert select.select([house._porch._door.socket], [], [], 30)[0]
    time.sleep(0.6)


def test_a_run_that_was_stopped_listens_before_it_ends_anybody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-Z while workers or students start: those who said hello meanwhile are not late."""
    monkeypatch.setattr(gaps, "_GAP_S", 0.3)
    monkeypatch.setattr(local_backend, "CONNECT_S", 0.5)
    monkeypatch.setattr(local_crew, "_CONNECT_S", 0.5)
    backend = LocalBackend(Role()._asdict(), COMMAND, print)
    try:
        name = backend.start()
        wait_for_a_knock(backend)
        (report,) = backend.poll(20)
        assert isinstance(report, Hello) and report.worker == name
    finally:
        backend.close()
    script = tmp_path / "mate.py"
    script.write_text(
        "import sys, time\nfrom stillhouse.runtime.local.door import connected\n"
        "from stillhouse.runtime.local.line import Line\nLine(connected(sys.argv[1]), sys.argv[2])\ntime.sleep(60)"
    )
    crew = LocalCrew([sys.executable, str(script)], ["one"], print)
    try:
        wait_for_a_knock(crew)
        (came,) = crew.poll(20)
        assert isinstance(came, Came)
    finally:
        crew.close()


def test_who_is_always_slow_was_not_stopped() -> None:
    """A gap is what nobody looked in, once: a process that looks seldom still ends who is late."""
    gaps_seen = Gaps(lambda: 0.0)
    assert [gaps_seen.missed_s(now_s) for now_s in (1.0, 100.0, 200.0, 300.0, 301.0, 400.0)] == [
        0.0, 99.0, 0.0, 100.0, 0.0, 99.0,
    ]  # fmt: skip

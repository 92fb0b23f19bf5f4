"""Processes that work together: who comes in, long messages, strangers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stillhouse.runtime.local import pieces as cut
from stillhouse.runtime.local.crew import Came, Entrance, Gone, LocalCrew, Said
from stillhouse.runtime.local.door import MEETING, Door
from stillhouse.runtime.local.frames import PROTOCOL, Frame, pack
from stillhouse.runtime.tcp_door import TcpDoor, reached

MATE = """
import sys
from stillhouse.runtime.local.door import connected
from stillhouse.runtime.local.line import Line
line = Line(connected(sys.argv[1]), sys.argv[2])
while True:
    frame = line.next("echo")
    line.say({"do": "echoed", "length": len(frame.body)}, bytes(frame.body))
"""


def until(crew: Any, kind: type, count: int = 1) -> list[Any]:
    """The first ``count`` news of a kind, waited for."""
    found: list[Any] = []
    end_s = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < end_s
        found += [each for each in crew.poll(0.2) if isinstance(each, kind)]
    return found


def test_a_crew_comes_speaks_and_ends(tmp_path: Path) -> None:
    """Two processes come in by their names, long messages go both ways, a death is told in words, and all end."""
    script = tmp_path / "mate.py"
    script.write_text(MATE)
    crew = LocalCrew([sys.executable, str(script)], ["one", "two"], print)
    try:
        assert {each.name for each in until(crew, Came, 2)} == {"one", "two"}
        body = bytes(range(256)) * 2**14
        crew.send("two", {"do": "echo"}, body)
        (said,) = until(crew, Said)
        assert (said.name, said.header["length"], bytes(said.body)) == ("two", len(body), body)
        crew.send("one", {"do": "echo", "body": 1}, b"")
        assert until(crew, Said)[0].header["length"] == 0
        child = crew._mates["one"].child
        assert child is not None
        child.kill()
        assert until(crew, Gone) == [Gone("one", "killed by SIGKILL")]
        folder = crew.folder
    finally:
        crew.close()
    assert not folder.exists()


def test_long_messages_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body longer than a frame may be is cut, and whole again at the other end; a short one is one frame."""
    monkeypatch.setattr(cut, "PIECE_BYTES", 4)
    for length in (0, 1, 4, 5, 11):
        body = bytes(range(length))
        frames = list(cut.pieces({"do": "x"}, body))
        assert len(frames) == max(-(-length // 4), 1)
        joiner = cut.Joiner()
        found = [joiner.joined(Frame(dict(header), bytearray(part))) for header, part in frames]
        assert found[:-1] == [None] * (len(frames) - 1)
        assert found[-1] == Frame({"do": "x"}, bytearray(body))


def test_only_who_knows_the_token_comes_in_by_tcp() -> None:
    """A hello without the token is hung up on and warned of, before anything else it says is read."""
    warned: list[str] = []
    door = TcpDoor("127.0.0.1")

    def welcome(hello: dict[str, Any]) -> str:
        door.check(hello)
        return "friend"

    entrance = Entrance(door, welcome, warned.append)
    try:
        stranger, friend = reached(door.address), reached(door.address)
        assert stranger is not None and friend is not None
        with stranger:
            stranger.sendall(cut_hello("wrong"))
            friend.sendall(cut_hello(door.token))
            assert until(entrance, Came)[0].name == "friend"
            entrance.poll(0.1)
            assert stranger.recv(1) == b""
        assert len(warned) == 1 and "without the run's token" in warned[0]
        friend.close()
        assert until(entrance, Gone) == [Gone("friend", "hung up")]
    finally:
        entrance.close()
    assert reached(door.address) is None


def cut_hello(token: str) -> bytes:
    """A hello as bytes."""
    return pack({"do": "hello", "protocol": PROTOCOL, "token": token})


def test_what_a_killed_run_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a run that was killed, with what its processes met by, is gone once the next run has a door."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    code = (
        "import os; from stillhouse.runtime.local.door import *; d = Door(); print(d.address, flush=True); os._exit(9)"
    )
    address = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    left = Path(address).parent
    (left / MEETING).write_text("here")
    assert left.parent == tmp_path
    Door().close()
    assert list(tmp_path.iterdir()) == []

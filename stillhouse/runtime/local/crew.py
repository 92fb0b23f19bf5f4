"""Processes that work on one thing together, as their run sees them: started, heard, and ended all at once.

Unlike workers that answer loans, each of them says what it has to say unasked, and none can be done without: when one
is gone the run ends the others. They come in by a door of their own, whose folder they may use to find one another.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from stillhouse.runtime.gaps import Gaps
from stillhouse.runtime.local.channel import Channel
from stillhouse.runtime.local.children import Child
from stillhouse.runtime.local.door import Door
from stillhouse.runtime.local.frames import BODY_BYTES_MAX, Bytes, Frame, ProtocolError
from stillhouse.runtime.local.member import name_in
from stillhouse.runtime.local.pieces import Joiner, pieces
from stillhouse.runtime.local.porch import AnyDoor, Porch

_CONNECT_S = 120.0
_LOOK_S = 0.05


class Said(NamedTuple):
    """One of them said something."""

    name: str
    header: dict[str, Any]
    body: bytearray


class Came(NamedTuple):
    """One of them came in. ``hello``: what it says of itself."""

    name: str
    hello: dict[str, Any]


class Gone(NamedTuple):
    """One of them is no more; nothing of it follows. ``why`` is for a person."""

    name: str
    why: str


class Crew(Protocol):
    """Processes that belong together, wherever they live; all methods are for one thread."""

    def poll(self, timeout_s: float) -> list[Came | Said | Gone]:
        """What happened since; waits for something to happen."""

    def send(self, name: str, header: dict[str, Any], body: Bytes = b"") -> None:
        """Tell one of them something; lost if it is gone."""

    def close(self) -> None:
        """End all of them, at once. Idempotent."""


class StandingCrew(Crew, Protocol):
    """A crew whose processes come and go by themselves."""

    def start(self, name: str) -> None:
        """Start one; nobody of that name is there."""

    def end(self, name: str) -> None:
        """End one at once; that it is gone is told as ever."""


class Mate:
    """One of them. ``child`` is None where somebody else started it; ``channel`` until it came."""

    def __init__(self, child: Child | None) -> None:
        self.child = child
        self.channel: Channel | None = None
        self.joiner = Joiner()


class Entrance:
    """Channels of processes that came in by a door, whoever started them.

    Args:
        welcome: the name of who says hello; raises ProtocolError for somebody else.
        warn: told of strangers.
    """

    def __init__(self, door: AnyDoor, welcome: Callable[[dict[str, Any]], str], warn: Callable[[str], None]) -> None:
        self._welcome, self._warn = welcome, warn
        self._selector = selectors.DefaultSelector()
        self._porch = Porch(door, self._selector, self._greet, warn)
        self._gaps = Gaps(time.monotonic)
        self._mates: dict[str, Mate] = {}
        self._told: set[str] = set()
        self._news: list[Came | Said | Gone] = []
        self._open = True

    def poll(self, timeout_s: float) -> list[Came | Said | Gone]:
        """What happened since; waits for something to happen."""
        end_s = time.monotonic() + timeout_s
        while self._open:
            now_s = time.monotonic()
            if missed_s := self._gaps.missed_s(now_s):
                self.wait_longer(missed_s)
            self._porch.keep_limits(now_s)
            self.look()
            wait_s = 0.0 if self._news else min(max(end_s - time.monotonic(), 0.0), _LOOK_S)
            for key, mask in self._selector.select(wait_s):
                key.data(mask)
            if self._news or time.monotonic() >= end_s:
                break
        news, self._news = self._news, []
        return news

    def look(self) -> None:
        """Called often: look after what no socket tells."""

    def wait_longer(self, missed_s: float) -> None:
        """Nobody was heard for so long: it counts for nobody."""
        self._porch.wait_longer(missed_s)

    def send(self, name: str, header: dict[str, Any], body: Bytes = b"") -> None:
        """Tell one of them something; lost if it is gone."""
        mate = self._mates.get(name)
        if mate is not None and mate.channel is not None:
            for head, part in pieces(header, body):
                mate.channel.send(head, part)
            self._watch(name, mate.channel)

    def close(self) -> None:
        """Hang up on all. Idempotent."""
        if not self._open:
            return
        self._open = False
        for name in list(self._mates):
            self.part(name)
        self._porch.close()
        self._selector.close()

    def part(self, name: str) -> None:
        """Hang up on one and forget it."""
        mate = self._mates.pop(name)
        if mate.channel is not None:
            self._selector.unregister(mate.channel.socket)
            mate.channel.close()

    def forget(self, name: str) -> None:
        """Hang up on one, if it is there."""
        if name in self._mates:
            self.part(name)

    def left(self, name: str, why: str) -> None:
        """One is gone."""
        self.part(name)
        self._news.append(Gone(name, why))

    def _greet(self, channel: Channel, frame: Frame | None) -> None:
        """Somebody says its first words, or ends without any."""
        if frame is None:
            channel.close()
            return
        try:
            name = self._welcome(frame.header)
        except ProtocolError as error:
            told = f"somebody was sent away from the students' door: {error}"
            if told not in self._told:  # who comes again and again fills no log
                self._told.add(told)
                self._warn(told)
            channel.close()
            return
        channel.decoder.body_bytes_max = BODY_BYTES_MAX
        self._mates.setdefault(name, Mate(None)).channel = channel
        self._selector.register(channel.socket, selectors.EVENT_READ, partial(self._heard, name))
        self._news.append(Came(name, frame.header))

    def _heard(self, name: str, mask: int) -> None:
        mate = self._mates.get(name)
        if mate is None or mate.channel is None:
            return
        channel = mate.channel
        if mask & selectors.EVENT_WRITE:
            channel.flush()
        if mask & selectors.EVENT_READ:
            self.hear(name, mate)
        if channel.ended:
            self.hung_up(name, mate, channel.ended)
        else:
            self._watch(name, channel)

    def hear(self, name: str, mate: Mate, *limit: int) -> None:
        """Take what one says."""
        assert mate.channel is not None
        for frame in mate.channel.receive(*limit):
            try:
                whole = mate.joiner.joined(Frame(frame.header, frame.body))
            except ProtocolError as error:
                mate.channel.refuse(error)
                break
            if whole is not None:
                self._news.append(Said(name, whole.header, whole.body))

    def hung_up(self, name: str, mate: Mate, why: str) -> None:
        """The connection of one ended."""
        self.left(name, why)

    def _watch(self, name: str, channel: Channel) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.unsent else 0)
        if self._selector.get_key(channel.socket).events != events:
            self._selector.modify(channel.socket, events, partial(self._heard, name))


class LocalCrew(Entrance):
    """Processes of this machine, children of this one.

    Attributes:
        folder: theirs, and nobody else's; gone with them.

    Args:
        command: what starts one; the address of the door and a name are appended.
        names: one process each; more can be started.
        warn: told of strangers at the door.

    Raises:
        FleetError: one can't be started.
    """

    def __init__(self, command: Sequence[str], names: Sequence[str], warn: Callable[[str], None]) -> None:
        door = Door()
        super().__init__(door, self._named, warn)
        self.folder: Path = Path(door.address).parent
        self._command, self._address = tuple(command), door.address
        self._awaited: dict[str, float] = {}
        try:
            for name in names:
                self.start(name)
        except BaseException:
            self.close()
            raise

    def start(self, name: str) -> None:
        """Start one; nobody of that name is there.

        Raises:
            FleetError: it can't be started.
        """
        self._mates[name] = Mate(Child([*self._command, self._address, name]))
        self._awaited[name] = time.monotonic() + _CONNECT_S

    def end(self, name: str) -> None:
        """Kill one; that it is gone is told as ever."""
        mate = self._mates.get(name)
        if mate is not None and mate.child is not None:
            mate.child.kill()

    def look(self) -> None:
        """See who ended, and who never came."""
        for name, mate in list(self._mates.items()):
            assert mate.child is not None
            mate.child.trim()
            if mate.child.exited():
                if mate.channel is not None:
                    self.hear(name, mate, 2**20)
                self._awaited.pop(name, None)
                self.left(name, mate.child.bury())
        for name, late_s in self._awaited.items():
            if time.monotonic() > late_s:
                self.end(name)

    def wait_longer(self, missed_s: float) -> None:
        """Nobody was heard for so long: those who are awaited may have come meanwhile."""
        super().wait_longer(missed_s)
        self._awaited = {name: late_s + missed_s for name, late_s in self._awaited.items()}

    def close(self) -> None:
        """Kill all. Idempotent."""
        for mate in self._mates.values():
            if mate.child is not None:
                mate.child.kill()
        for mate in self._mates.values():
            if mate.child is not None:
                mate.child.bury()
        super().close()

    def hung_up(self, name: str, mate: Mate, why: str) -> None:
        """How it ended is told by its exit, which comes soon, or is helped to."""
        assert mate.channel is not None and mate.child is not None
        self._selector.unregister(mate.channel.socket)
        mate.channel.close()
        mate.channel = None
        if "sent" in why:
            mate.child.kill()

    def _named(self, hello: dict[str, Any]) -> str:
        name = name_in(hello)
        if name not in self._awaited:
            raise ProtocolError(f"it calls itself {name!r}, and nobody of that name is awaited")
        del self._awaited[name]
        return name

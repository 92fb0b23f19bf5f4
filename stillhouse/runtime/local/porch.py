"""Who knocked at a door and has not said yet who it is: few at a time, none for long, whoever they are.

Where there is no room for another one in this process (no file descriptor is left), it waits outside, and the door is
looked at again a second later: a socket that is readable and can't be read would keep its listener busy for ever.
"""

from __future__ import annotations

import selectors
import socket as network
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from stillhouse.runtime.local.channel import Channel
from stillhouse.runtime.local.frames import Frame

HELLO_S = 10.0
STRANGERS_MAX = 64
_PAUSE_S = 1.0


class AnyDoor(Protocol):
    """Something to knock at; ``socket`` is readable when somebody does."""

    socket: network.socket

    def accept(self) -> tuple[network.socket | None, str]:
        """A guest, or None and why there is none ("": nobody is there).

        Raises:
            OSError: somebody is there, and can't be let in now.
        """

    def close(self) -> None:
        """Shut it."""


class Porch:
    """A door and those before it, watched by a selector whose keys' data is called with the event's mask.

    Args:
        greet: takes a guest's connection, off the selector by then, and the first that it said: None where it ended
            without a word (``channel.ended``).
        warn: told what a person should know.
    """

    def __init__(
        self,
        door: AnyDoor,
        selector: selectors.BaseSelector,
        greet: Callable[[Channel, Frame | None], None],
        warn: Callable[[str], None],
    ) -> None:
        self._door, self._selector, self._greet, self._warn = door, selector, greet, warn
        self._guests: dict[Channel, float] = {}
        self._opens_s: float | None = None
        self._short = False
        selector.register(door.socket, selectors.EVENT_READ, self._knock)

    def keep_limits(self, now_s: float) -> float:
        """Send away who had its time, and look at a door again that was left alone; when to call this again."""
        if self._opens_s is not None and now_s >= self._opens_s:
            self._opens_s = None
            self._selector.register(self._door.socket, selectors.EVENT_READ, self._knock)
        while self._guests and now_s >= next(iter(self._guests.values())):
            self._send_away_the_oldest()
        limits = [*list(self._guests.values())[:1], *([] if self._opens_s is None else [self._opens_s])]
        return min(limits, default=float("inf"))

    def wait_longer(self, missed_s: float) -> None:
        """Nobody was heard for so long: it counts for nobody."""
        self._guests = {channel: limit_s + missed_s for channel, limit_s in self._guests.items()}

    def close(self) -> None:
        """Hang up on all who wait, and shut the door."""
        for channel in self._guests:
            channel.close()
        self._guests.clear()
        self._door.close()

    def _knock(self, _mask: int) -> None:
        try:
            guest, problem = self._door.accept()
        except OSError as error:
            self._selector.unregister(self._door.socket)
            self._opens_s = time.monotonic() + _PAUSE_S
            if not self._short:
                self._warn(f"somebody knocks and can't be let in now: {error.strerror or error}")
            self._short = True
            return
        self._short = False
        if problem:
            self._warn(problem)
        if guest is None:
            return
        if len(self._guests) == STRANGERS_MAX:
            self._send_away_the_oldest()
        channel = Channel(guest)
        channel.decoder.body_bytes_max = 0
        self._guests[channel] = time.monotonic() + HELLO_S
        self._selector.register(guest, selectors.EVENT_READ, partial(self._heard, channel))

    def _heard(self, channel: Channel, _mask: int) -> None:
        if channel not in self._guests:  # sent away in this very turn
            return
        frames = channel.receive(1)
        if frames or channel.ended:
            self._selector.unregister(channel.socket)
            del self._guests[channel]
            self._greet(channel, frames[0] if frames else None)

    def _send_away_the_oldest(self) -> None:
        channel = next(iter(self._guests))
        del self._guests[channel]
        self._selector.unregister(channel.socket)
        channel.close()

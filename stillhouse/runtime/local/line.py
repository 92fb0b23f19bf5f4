"""A process's line to its run: what the run says waits by kind until it is wanted, and the end of the run ends it,
unless the run had dismissed it.

A thread hears; the main thread computes, and waits in :meth:`Line.next` for what it needs.
"""

from __future__ import annotations

import os
import platform
import queue
import select
import socket
import sys
import threading
from collections import defaultdict
from importlib.metadata import version
from typing import Any

from stillhouse.runtime.local.channel import Channel
from stillhouse.runtime.local.frames import PROTOCOL, Bytes, Frame
from stillhouse.runtime.local.pieces import Joiner, pieces


class Line:
    """Open from when it is made until the process ends.

    Args:
        connection: to the run.
        name: by which the run knows this process.
        facts: more to say in the hello.
    """

    def __init__(self, connection: socket.socket, name: str, **facts: Any) -> None:
        self._channel = Channel(connection)
        self._kept: defaultdict[str, queue.SimpleQueue[Frame]] = defaultdict(queue.SimpleQueue)
        self._over = False
        hello = {"do": "hello", "protocol": PROTOCOL, "stillhouse": version("stillhouse"), "name": name}
        self.say({**hello, "pid": os.getpid(), "host": platform.node(), **facts})
        threading.Thread(target=self._listen, name="line", daemon=True).start()

    def next(self, kind: str) -> Frame:
        """The next message of a kind, waited for."""
        return self._kept[kind].get()

    def heard(self, kind: str, wait_s: float = 0.0) -> Frame | None:
        """The next message of a kind, if one has come, or comes so soon."""
        try:
            return self._kept[kind].get(timeout=wait_s) if wait_s else self._kept[kind].get_nowait()
        except queue.Empty:
            return None

    def say(self, header: dict[str, Any], body: Bytes = b"") -> None:
        """Say something; returns when it is on its way."""
        for head, part in pieces(header, body):
            self._channel.send(head, part)
            while self._channel.unsent:
                select.select([], [self._channel.socket], [])
                self._channel.flush()

    def _listen(self) -> None:
        joiner = Joiner()
        while not self._channel.ended:
            select.select([self._channel.socket], [], [])
            for frame in self._channel.receive():
                whole = joiner.joined(frame)
                if whole is not None:
                    self._over = self._over or whole.header["do"] == "dismiss"
                    self._kept[whole.header["do"]].put(whole)
        if not self._over:
            print(f"student ends: the run {self._channel.ended}", file=sys.stderr, flush=True)
            os._exit(1)

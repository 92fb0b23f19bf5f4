"""A run that only waits for guests, and guests of our own making."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stillhouse.runtime.backend import Report
from stillhouse.runtime.local.backend import LocalBackend
from stillhouse.runtime.local.frames import HEADER_BYTES_MAX, PROTOCOL, pack
from stillhouse.runtime.work import Lease

from .acting import Role
from .stages import COMMAND, Stage

LOAN = Lease("student", 0, 1)
HELLO = {"do": "hello", "protocol": PROTOCOL, "stillhouse": "0", "pid": 1, "host": "h", "fds": True, "name": ""}
READY = {"do": "ready", "facts": {}, "slots": 1}
PROOF_MAX = 2 * HEADER_BYTES_MAX


class House:
    """A run that only waits for guests, and what it warned of."""

    def __init__(self, keeps: int = 0, **role: Any) -> None:
        self.warned: list[str] = []
        self.backend = LocalBackend(Role(**role)._asdict(), COMMAND, self.warned.append, PROOF_MAX, keeps)
        self.stage = Stage(self.backend, lambda _: None, lambda _: None, time.monotonic)

    def first(self) -> Report:
        """The next report, alone."""
        (report,) = self.stage.until(bool)
        return report

    def warning(self) -> str:
        """The one warning, waited for."""
        for _ in range(100):
            assert self.backend.poll(0.05) == []
            if self.warned:
                break
        (message,) = self.warned
        return message


@contextmanager
def opened(keeps: int = 0, **role: Any) -> Iterator[House]:
    house = House(keeps, **role)
    try:
        yield house
    finally:
        house.backend.close()


def said_at_the_end(worker: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr of a worker."""
    _, words = worker.communicate(timeout=10)
    return worker.returncode, words


def knock(house: House, *messages: dict[str, Any]) -> socket.socket:
    """A guest of our own making."""
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    guest.connect(house.backend.address)
    guest.settimeout(5)
    for message in messages:
        guest.sendall(pack(message))
    return guest


def hung_up_on(guest: socket.socket) -> bool:
    """Whether nothing more comes."""
    with guest:
        try:
            while guest.recv(65536):
                pass
        except ConnectionResetError:
            return True
        return True

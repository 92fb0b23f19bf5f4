"""A door that other machines reach: TCP, for who knows the token. What is said there is not encrypted.

It stands where processes of one user must find their run in a network that they share with others who are trusted, a
cluster's own: whoever listens in on that network reads the token and all else.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from typing import Any

from stillhouse.foundation.errors import FleetError
from stillhouse.runtime.local.frames import PROTOCOL, ProtocolError


class TcpDoor:
    """Listens from when it is made.

    Attributes:
        address: (host, port).
        token: to be told to who may come in, and to nobody else.

    Args:
        host: of this machine, as the others reach it.

    Raises:
        FleetError: nothing can listen there.
    """

    def __init__(self, host: str) -> None:
        self.token = secrets.token_hex(32)
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.socket = socket.create_server((host, 0), family=family)
        except OSError as error:
            raise FleetError(f"can't listen at {host}: {error.strerror or error}") from error
        self.socket.setblocking(False)
        self.address: tuple[str, int] = (host, self.socket.getsockname()[1])

    def accept(self) -> tuple[socket.socket | None, str]:
        """Who knocked; whether it may come in is for :meth:`check` to say, once it has said hello.

        Raises:
            OSError: somebody is there, and can't be let in now.
        """
        try:
            guest, _ = self.socket.accept()
        except (BlockingIOError, ConnectionError):
            return None, ""
        guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return guest, ""

    def check(self, hello: dict[str, Any]) -> None:
        """Refuse who does not know the token, or speaks otherwise; nothing that it said is repeated.

        Raises:
            ProtocolError: it does not.
        """
        if hello["do"] != "hello" or hello.get("protocol") != PROTOCOL:
            raise ProtocolError("not 'hello' in this run's protocol: install the same stillhouse on all machines")
        told = hello.get("token")
        said = told.encode(errors="replace") if isinstance(told, str) else b""
        if not hmac.compare_digest(said, self.token.encode()):
            raise ProtocolError("'hello' without the run's token")

    def close(self) -> None:
        """Shut it. Idempotent."""
        self.socket.close()


def reached(address: tuple[str, int]) -> socket.socket | None:
    """A connection to the door at an address; None: nobody listens there any more."""
    try:
        connection = socket.create_connection(address, timeout=60)
    except OSError:
        return None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection

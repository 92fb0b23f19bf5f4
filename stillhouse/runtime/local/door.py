"""The front door of a run: a Unix domain socket, in a fresh folder that only its user can enter.

A worker comes in by it whether the run started it, a person did in another shell, or ssh forwards it from another
machine. Another user (let in by an opened folder, or root) is told apart by the kernel, and hung up on; so is, by who
comes in, another user who listens. A run that was killed leaves its folder behind; the next one sweeps those where
nobody listens.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

from stillhouse.foundation.errors import FleetError, UserError

# The kernel keeps the address in 108 bytes (104 on macOS), the last of them a zero.
_ADDRESS_BYTES_MAX = 103
# A file beside the socket, by which processes that came in may find one another.
MEETING = "meeting"
_PREFIX = "stillhouse-"
_PEER = struct.Struct("3i")


class Door:
    """Listens from when it is made.

    Attributes:
        address: the socket's path, what a worker connects to.
        socket: to be watched; readable when somebody knocks.

    Raises:
        FleetError: no folder for it can be made.
    """

    def __init__(self) -> None:
        self._folder = _fresh_folder()
        self.address = str(self._folder / "door")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # It gets its name when it listens, so that a door that refuses is a dead one, safe to sweep.
            self.socket.bind(f"{self.address}~")
            self.socket.listen(128)
            self.socket.setblocking(False)
            os.rename(f"{self.address}~", self.address)
        except OSError as error:
            self.close()
            raise FleetError(f"can't listen at {self.address}: {error.strerror or error}") from error

    def accept(self) -> tuple[socket.socket | None, str]:
        """Who knocked: a connection of the same user, or None and why there is none ("": nobody is there).

        Raises:
            OSError: somebody is there, and can't be let in now.
        """
        try:
            guest, _ = self.socket.accept()
        except (BlockingIOError, ConnectionError):
            return None, ""
        user = _user_of(guest)
        if user in (None, os.geteuid()):
            return guest, ""
        guest.close()
        return None, f"user {user} tried to join the run at {self.address} and was hung up on: only its own user may"

    def close(self) -> None:
        """Shut it and remove its folder. Idempotent."""
        self.socket.close()
        _remove(self._folder)


def connected(address: str) -> socket.socket:
    """A connection to the door at a path. Who listens there says what code is run here, so it must be the same user.

    Raises:
        FleetError: nobody listens there.
        UserError: another user does.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
        user = _user_of(connection)
        if user is None:
            user = os.stat(address).st_uid
    except OSError as error:
        connection.close()
        raise FleetError(f"no run listens at {address}: {error.strerror or error}") from error
    if user != os.geteuid():
        connection.close()
        raise UserError(
            f"user {user} listens at {address}, and whoever joins there runs what that user wants: join a run of your "
            f"own (you are user {os.geteuid()}) by a socket in a folder that only you can enter"
        )
    return connection


def _user_of(peer: socket.socket) -> int | None:
    """The user at the other end; None where the system doesn't tell (then who owns folder and file is all there is)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, user, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(user)


def _fresh_folder() -> Path:
    places = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]
    for place in filter(None, places):
        # mkdtemp appends eight characters.
        if len(os.fsencode(f"{place}/{_PREFIX}12345678/door~")) > _ADDRESS_BYTES_MAX:
            continue
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            _sweep(folder.parent)
            return folder
    raise FleetError(f"no folder for a socket can be made in any of {', '.join(filter(None, places))}")


def _sweep(place: Path) -> None:
    """Remove the folders of our runs that were killed."""
    for folder in place.glob(f"{_PREFIX}*"):
        door = folder / "door"
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
            if door.is_socket() and door.stat().st_uid == os.geteuid():
                visitor.setblocking(False)
                try:
                    visitor.connect(str(door))
                except ConnectionRefusedError:
                    _remove(folder)


def _remove(folder: Path) -> None:
    for name in ("door", "door~", MEETING):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()

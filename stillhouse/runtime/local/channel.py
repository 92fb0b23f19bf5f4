"""One end of a connection: frames in and out, never waiting. What can't be written yet is kept and flushed later.

A stopped peer therefore never stops us: what is kept for it is bounded by its slots. ``send`` may be called from any
thread, all else from the thread that listens.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from typing import Any

from stillhouse.runtime.local.frames import Bytes, Decoder, Frame, ProtocolError, pack

# More than these at a time would let one talkative peer keep us from the others.
_FRAMES_A_TURN = 64
# Copying so much costs less than another system call.
_JOINED_BYTES = 2**14
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Channel:
    """Frames over a connected stream socket, which it owns.

    Attributes:
        ended: why nothing will be heard any more; "" while the connection stands.
        broken: whether it ended because the peer sent what it must not.
        decoder: its bound on bodies may be moved.

    Args:
        takes_fds: file descriptors that come with frames are kept for :meth:`take_fd`; else the kernel closes them.
    """

    def __init__(self, sock: socket.socket, *, takes_fds: bool = False) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.ended = ""
        self.broken = False
        self.decoder = Decoder()
        self._takes_fds = takes_fds
        self._fds: deque[int] = deque()
        self._unsent: deque[tuple[memoryview, int | None]] = deque()
        self._sending = threading.Lock()

    @property
    def unsent(self) -> bool:
        """Whether something waits until the socket can be written."""
        return bool(self._unsent)

    def send(self, header: dict[str, Any], body: Bytes = b"", fd: int | None = None) -> None:
        """Send a frame, or keep it until :meth:`flush`; to a peer that is gone it is lost without complaint.

        Args:
            body: not copied; must not be changed before it is sent.
            fd: a file descriptor that goes with the frame; a duplicate, the caller may close its own at once.
        """
        view = memoryview(body)
        head = pack(header, view.nbytes)
        if view.nbytes <= _JOINED_BYTES:
            head += view
        with self._sending:
            self._unsent.append((memoryview(head), None if fd is None else os.dup(fd)))
            if view.nbytes > _JOINED_BYTES:
                self._unsent.append((view.cast("B"), None))
            self._flush()

    def flush(self) -> None:
        """Write what can be written."""
        with self._sending:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            data, fd = self._unsent[0]
            try:
                sent = self.socket.send(data) if fd is None else socket.send_fds(self.socket, [data], [fd])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # That the peer is gone is heard by reading, after its last words.
                self._forget_unsent()
                return
            if fd is not None:
                os.close(fd)
            self._unsent.popleft()
            if sent < len(data):
                self._unsent.appendleft((data[sent:], None))

    def receive(self, limit: int = _FRAMES_A_TURN) -> list[Frame]:
        """The frames that have come, at most ``limit``; :attr:`ended` says when there will be no more."""
        frames: list[Frame] = []
        while not self.ended and len(frames) < limit:
            try:
                count = self._read(self.decoder.room())
                if count == 0:
                    self.ended = "hung up"
                elif frame := self.decoder.filled(count):
                    frames.append(frame)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self.ended = f"hung up: {error.strerror or error}"
            except ProtocolError as error:
                self.refuse(error)
        return frames

    def refuse(self, error: ProtocolError) -> None:
        """What came makes no sense: listen no more."""
        self.ended, self.broken = f"sent {error}", True

    def _read(self, room: memoryview) -> int:
        if not (self._takes_fds and self.decoder.between_frames):
            return self.socket.recv_into(room)
        data, fds, _, _ = socket.recv_fds(self.socket, len(room), 4, _CLOSE_ON_EXEC)
        self._fds.extend(fds)
        room[: len(data)] = data
        return len(data)

    def take_fd(self) -> int | None:
        """The oldest file descriptor that came, now the caller's; None if none came."""
        return self._fds.popleft() if self._fds else None

    def close(self) -> None:
        """Hang up. Idempotent."""
        with self._sending:
            self._forget_unsent()
        while self._fds:
            os.close(self._fds.popleft())
        self.socket.close()

    def _forget_unsent(self) -> None:
        for _, fd in self._unsent:
            if fd is not None:
                os.close(fd)
        self._unsent.clear()

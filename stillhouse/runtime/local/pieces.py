"""Messages longer than a frame may be, in several frames: all but the last say that there is more.

Who reads them joins them again in the order they come; between the pieces of one message nothing else is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stillhouse.runtime.local.frames import Bytes, Frame, ProtocolError

PIECE_BYTES = 2**28
_WHOLE_BYTES_MAX = 2**40


def pieces(header: dict[str, Any], body: Bytes) -> Iterator[tuple[dict[str, Any], memoryview]]:
    """The frames of a message; one, for most."""
    view = memoryview(body).cast("B")
    for start in range(0, max(len(view), 1), PIECE_BYTES):
        part = view[start : start + PIECE_BYTES]
        more = start + len(part) < len(view)
        yield ({**header, "more": True} if more else header), part


class Joiner:
    """Puts the pieces of one peer's messages together."""

    def __init__(self) -> None:
        self._body = bytearray()

    def joined(self, frame: Frame) -> Frame | None:
        """The whole message, when this was its last piece.

        Raises:
            ProtocolError: it is longer than any message.
        """
        if frame.header.pop("more", False) is True:
            self._body += frame.body
            if len(self._body) > _WHOLE_BYTES_MAX:
                raise ProtocolError(f"'{frame.header['do']}' without an end")
            return None
        if not self._body:
            return frame
        body, self._body = self._body + frame.body, bytearray()
        return Frame(frame.header, body)

"""Frames on a stream: two 4-byte lengths, a JSON header, a raw body. Nothing is ever unpickled.

    length of header | length of body | header: {"do": ..., ...} | body

A peer is a program of the same user, but not always of the same version, or ours: lengths are checked before anything
is allocated, and memory grows only with bytes that have come. Whatever is wrong raises :class:`ProtocolError`, which
ends one connection. Parts are read by exact length, so that a file descriptor arrives with the frame it was sent with.
"""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

from stillhouse.foundation.errors import FleetError
from stillhouse.runtime.work import Lease

PROTOCOL = 1
HEADER_BYTES_MAX = 2**20
BODY_BYTES_MAX = 2**30
SLOTS_MAX = 1024
_SECONDS_MAX = 1e9

_LENGTHS = struct.Struct("!II")
_FIRST_PIECE = 2**20
_encode = json.JSONEncoder(separators=(",", ":")).encode

Bytes = bytes | bytearray | memoryview


class ProtocolError(FleetError):
    """A peer sent what no worker or run of this protocol sends; its connection ends."""


class Frame(NamedTuple):
    """What was said (``header["do"]``), and bytes that go with it."""

    header: dict[str, Any]
    body: bytearray


def pack(header: dict[str, Any], body_bytes: int = 0) -> bytes:
    """All of a frame but its body.

    Raises:
        ProtocolError: it is longer than a reader would take.
    """
    said = _encode(header).encode()
    if len(said) > HEADER_BYTES_MAX or body_bytes > BODY_BYTES_MAX:
        raise ProtocolError(f"a message of {len(said)} + {body_bytes} bytes is longer than any reader takes")
    return _LENGTHS.pack(len(said), body_bytes) + said


class Decoder:
    """Cuts a stream into frames. Read into :meth:`room`, then tell :meth:`filled` how much came.

    Args:
        body_bytes_max: the longest body taken; may be changed between frames.
    """

    def __init__(self, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self.body_bytes_max = body_bytes_max
        self._header: dict[str, Any] | None = None
        self._lengths: tuple[int, int] | None = None
        self._buffer = bytearray()
        self._expect(_LENGTHS.size)

    @property
    def between_frames(self) -> bool:
        """Whether the next byte begins a frame."""
        return self._lengths is None and self._got == 0

    def room(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._got == len(self._buffer):
            self._buffer += bytes(min(len(self._buffer), self._wanted - self._got))
        return memoryview(self._buffer)[self._got :]

    def filled(self, count: int) -> Frame | None:
        """``count`` bytes came; the frame, if they end it.

        Raises:
            ProtocolError: this is no frame of ours.
        """
        self._got += count
        if self._got < self._wanted:
            return None
        if self._lengths is None:
            self._begin()
            return None
        if self._header is None:
            self._header = _header_of(self._buffer)
            if self._lengths[1]:
                self._expect(self._lengths[1])
                return None
            self._buffer = bytearray()
        frame = Frame(self._header, self._buffer)
        self._header = self._lengths = None
        self._expect(_LENGTHS.size)
        return frame

    def _begin(self) -> None:
        header_bytes, body_bytes = _LENGTHS.unpack(self._buffer)
        if not 0 < header_bytes <= HEADER_BYTES_MAX:
            raise ProtocolError(f"a header of {header_bytes} bytes, where 1 to {HEADER_BYTES_MAX} are allowed")
        if body_bytes > self.body_bytes_max:
            raise ProtocolError(f"a body of {body_bytes} bytes, where at most {self.body_bytes_max} are allowed")
        self._lengths = (header_bytes, body_bytes)
        self._expect(header_bytes)

    def _expect(self, wanted: int) -> None:
        self._wanted, self._got = wanted, 0
        self._buffer = bytearray(min(wanted, _FIRST_PIECE))


def _header_of(text: bytearray) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a header that is not JSON: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("do"), str):
        raise ProtocolError("a header that does not say what to do")
    return header


def number_in(header: dict[str, Any], key: str, low: int, high: int) -> int:
    """A whole number of a header.

    Raises:
        ProtocolError: it is missing, or not in [low, high].
    """
    value = header.get(key)
    if type(value) is not int or not low <= value <= high:
        raise ProtocolError(f"'{header['do']}' without a {key} from {low} to {high}")
    return value


def seconds_in(header: dict[str, Any], key: str) -> float | None:
    """A duration of a header in seconds, None where it is missing.

    Raises:
        ProtocolError: it is something else.
    """
    value = header.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= _SECONDS_MAX:
        raise ProtocolError(f"'{header['do']}' with a {key} that is no duration")
    return float(value)


def text_in(header: dict[str, Any], key: str) -> str:
    """A text of a header, "" where it is missing.

    Raises:
        ProtocolError: it is something else.
    """
    value = header.get(key, "")
    if not isinstance(value, str):
        raise ProtocolError(f"'{header['do']}' with a {key} that is not text")
    return value


def mapping_in(header: dict[str, Any], key: str) -> dict[str, Any]:
    """A mapping of a header.

    Raises:
        ProtocolError: it is missing or something else.
    """
    value = header.get(key)
    if not isinstance(value, dict):
        raise ProtocolError(f"'{header['do']}' without {key}")
    return value


def lease_in(header: dict[str, Any]) -> Lease:
    """The lease that a header is about.

    Raises:
        ProtocolError: it names none.
    """
    match header.get("lease"):
        case [str() as consumer, int() as number, int() as generation]:
            return Lease(consumer, number, generation)
    raise ProtocolError(f"'{header['do']}' without a lease")

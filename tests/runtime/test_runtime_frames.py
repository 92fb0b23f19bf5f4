"""Frames: whole again however the stream is cut, and nothing but a ProtocolError from nonsense."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.runtime.local.frames import (
    HEADER_BYTES_MAX,
    Decoder,
    Frame,
    ProtocolError,
    lease_in,
    mapping_in,
    number_in,
    pack,
    text_in,
)
from stillhouse.runtime.work import Lease

HEADERS = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=9), max_size=4)


def feed(decoder: Decoder, stream: bytes, cuts: list[int]) -> list[Frame]:
    """Give a stream to a decoder in pieces of the sizes in ``cuts``, over and over."""
    frames, at, turn = [], 0, 0
    while at < len(stream):
        room = decoder.room()
        count = min(len(room), cuts[turn % len(cuts)], len(stream) - at)
        room[:count] = stream[at : at + count]
        room.release()
        if frame := decoder.filled(count):
            frames.append(frame)
        at, turn = at + count, turn + 1
    return frames


@given(
    st.lists(st.tuples(HEADERS, st.binary(max_size=300)), max_size=5),
    st.lists(st.integers(1, 99), min_size=1, max_size=9),
)
def test_frames_survive_any_cutting(messages: list[tuple[dict[str, object], bytes]], cuts: list[int]) -> None:
    """What was packed comes out, in whatever pieces the stream arrives."""
    messages = [({**header, "do": "something"}, body) for header, body in messages]
    decoder = Decoder()
    stream = b"".join(pack(header, len(body)) + body for header, body in messages)
    assert feed(decoder, stream, cuts) == messages
    assert decoder.between_frames


@given(st.binary(max_size=200))
def test_nonsense_is_a_protocol_error(stream: bytes) -> None:
    """Random bytes make no frame and no other error."""
    with contextlib.suppress(ProtocolError):
        feed(Decoder(), stream, [7])


@given(st.text(max_size=100))
def test_nonsense_in_a_header_is_a_protocol_error(text: str) -> None:
    """A header of any text is a frame only if it is a JSON object that says what to do."""
    said = text.encode(errors="replace") or b"1"
    try:
        frames = feed(Decoder(), struct.pack("!II", len(said), 0) + said, [50])
    except ProtocolError:
        return
    assert isinstance(frames[0].header["do"], str)


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("!II", HEADER_BYTES_MAX + 1, 0),
        struct.pack("!II", 0, 0),
        struct.pack("!II", 2, 11),
        struct.pack("!II", 100_000, 0) + b"[" * 100_000,
        struct.pack("!II", 4, 0) + b"[{}]",
        struct.pack("!II", 8, 0) + b'{"do":1}',
        struct.pack("!II", 2, 0) + b"\xff\xfe",
    ],
)
def test_what_is_refused(stream: bytes) -> None:
    """Lengths beyond their bounds, deep nests, lists, no verb and broken text are refused."""
    with pytest.raises(ProtocolError):
        feed(Decoder(body_bytes_max=10), stream, [1000])


def test_a_length_alone_takes_no_memory() -> None:
    """A body that is announced takes memory only as it comes."""
    decoder = Decoder()
    feed(decoder, pack({"do": "answer"}, 2**30), [100])
    assert len(decoder.room()) <= 2**20


def test_too_long_to_be_sent() -> None:
    """What no reader would take is refused when it is packed."""
    with pytest.raises(ProtocolError, match="longer"):
        pack({"do": "x" * HEADER_BYTES_MAX})
    with pytest.raises(ProtocolError, match="longer"):
        pack({"do": "x"}, 2**30 + 1)


def test_fields_are_checked() -> None:
    """A field of the wrong type or out of its bounds is refused, and a good one is read."""
    good = {"do": "x", "lease": ["s", 1, 2], "n": 5, "t": "word", "m": {}}
    assert lease_in(json.loads(json.dumps(good))) == Lease("s", 1, 2)
    assert (number_in(good, "n", 0, 5), text_in(good, "t"), text_in(good, "none"), mapping_in(good, "m")) == (
        5,
        "word",
        "",
        {},
    )
    for bad in ({}, {"lease": 1}, {"lease": ["s", 1]}, {"lease": [1, 1, 1]}, {"lease": ["s", 1.5, 1]}):
        with pytest.raises(ProtocolError):
            lease_in({"do": "x", **bad})
    for bad in ({}, {"n": 6}, {"n": -1}, {"n": True}, {"n": "5"}, {"n": 2.0}):
        with pytest.raises(ProtocolError):
            number_in({"do": "x", **bad}, "n", 0, 5)
    with pytest.raises(ProtocolError):
        text_in({"do": "x", "t": 1}, "t")
    with pytest.raises(ProtocolError):
        mapping_in({"do": "x", "m": []}, "m")

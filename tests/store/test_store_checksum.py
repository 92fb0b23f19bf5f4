"""The checksum: what it always sees, and that it stays the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import ints

from stillhouse.store.checksum import checksums, intact, row_bytes, seal

LARGE = 2**62


def sealed_row(payload: bytes, sample_id: int = 5, view: int = 2, salt: int = 99) -> np.ndarray:
    return seal(np.frombuffer(payload, np.uint8)[None], ints(sample_id), ints(view), salt)


def valid(row: np.ndarray, sample_id: int = 5, view: int = 2, salt: int = 99) -> bool:
    return bool(intact(row.view("<u4"), ints(sample_id), ints(view), salt)[0])


def test_the_checksum_never_changes() -> None:
    """Rows written by an older version stay readable: the numbers are these, for ever."""
    rows = np.arange(3 * 9, dtype=np.uint8).reshape(3, 9)
    found = checksums(rows, ints(0, 1, 2**40), ints(0, -1, 7), 0x123456789ABCDEF)
    assert [hex(each) for each in found] == GOLDEN
    wide = np.arange(400, dtype=np.uint32).astype(np.uint8)[None]
    assert hex(checksums(wide, ints(3), ints(4), 5)[0]) == GOLDEN_WIDE


GOLDEN = ["0x8b288b2678d7a0b7", "0x1062becd45e59029", "0xba95172eba130075"]
GOLDEN_WIDE = "0xe9599060bbf3b5fd"


@given(
    st.binary(min_size=1, max_size=300), st.integers(0, LARGE), st.integers(-1, 2**31 - 1), st.integers(0, 2**63 - 1)
)
def test_the_formula_is_the_one_written_down(payload: bytes, sample_id: int, view: int, salt: int) -> None:
    """The checksum is 1 + 2 (salt + a id + b view + sum of m_j word_j) mod 2^64, whatever the width."""
    zero = np.zeros((1, len(payload)), np.uint8)

    def found(row: np.ndarray, i: int, v: int, s: int) -> int:
        return int(checksums(row, ints(i), ints(v), s)[0])

    a = found(zero, 1, 0, 0) - 1
    b = found(zero, 0, 1, 0) - 1
    expected = 1 + 2 * salt + a * sample_id + b * view
    words = np.frombuffer(payload + bytes(-len(payload) % 4), "<u4").tolist()
    for place, word in enumerate(words):
        if word == 0:
            continue
        one = np.zeros((1, 4 * len(words)), np.uint8)
        one[0, 4 * place] = 1
        expected += (found(one, 0, 0, 0) - 1) * word
    assert found(np.frombuffer(payload, np.uint8)[None], sample_id, view, salt) == expected % 2**64


@given(st.binary(min_size=1, max_size=40), st.integers(0, LARGE), st.integers(-1, 2**31 - 1), st.integers(0, 2**63 - 1))
def test_a_sealed_row_is_valid_and_nothing_is_zero(payload: bytes, sample_id: int, view: int, salt: int) -> None:
    """A sealed row is valid at its place, its checksum odd; all zeros are valid nowhere."""
    row = sealed_row(payload, sample_id, view, salt)
    assert row.shape == (1, row_bytes(len(payload)))
    assert valid(row, sample_id, view, salt)
    assert row[0, -8] % 2 == 1
    assert not valid(np.zeros_like(row), sample_id, view, salt)


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_change_within_one_word_is_always_seen(payload: bytes, data: st.DataObject) -> None:
    """Whatever happens to one 32-bit word, of payload, padding or checksum, the row is refused."""
    row = sealed_row(payload)
    words = row.view("<u4")
    place = data.draw(st.integers(0, words.shape[1] - 1))
    words[0, place] ^= data.draw(st.integers(1, 2**32 - 1))
    assert not valid(row)


@pytest.mark.parametrize("width", [1, 4, 36, 130, 2000])
def test_every_single_bit_counts(width: int) -> None:
    """Any one bit of a row turned over is seen, in narrow and wide rows."""
    row = sealed_row((bytes(range(256)) * 8)[:width])
    bits = np.arange(8 * row.shape[1])
    flipped = np.repeat(row, len(bits), axis=0)
    flipped[bits, bits // 8] ^= (1 << (bits % 8)).astype(np.uint8)
    ids, views = np.full(len(bits), 5), np.full(len(bits), 2)
    assert not intact(flipped.view("<u4"), ids, views, 99).any()


@given(st.binary(min_size=4, max_size=40), st.integers(0, LARGE), st.integers(-1, 2**40), st.integers(0, 2**63 - 1))
def test_a_row_in_the_wrong_place_is_refused(payload: bytes, sample_id: int, view: int, salt: int) -> None:
    """A row copied to another sample, another view or into another store is not valid there."""
    row = sealed_row(payload)
    assert valid(row, sample_id) == (sample_id == 5)
    assert valid(row, view=view) == (view == 2)
    assert valid(row, salt=salt) == (salt == 99)


def test_rows_are_told_apart_in_a_batch() -> None:
    """A batch is checked row by row, and a key's checksum doesn't depend on its neighbours."""
    rows = np.random.default_rng(0).integers(0, 256, (100, 21), np.uint8)
    ids, views = np.arange(100), np.arange(100) % 7
    row = seal(rows, ids, views, 1)
    row[40, 3] ^= 1
    assert np.flatnonzero(~intact(row.view("<u4"), ids, views, 1)).tolist() == [40]
    alone = [int(checksums(rows[i : i + 1], ids[i : i + 1], views[i : i + 1], 1)[0]) for i in range(100)]
    assert checksums(rows, ids, views, 1).tolist() == alone

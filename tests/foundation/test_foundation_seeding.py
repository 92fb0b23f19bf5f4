"""Random numbers: known answers, and what a number may depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.foundation.seeding import below, philox, subseed, words

# Random123's kat_vectors for philox4x32-10.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

IDS = st.integers(0, 2**63 - 1)
VIEWS = st.integers(0, 2**31 - 1)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_known_answers(counter: str, key: str, answer: str) -> None:
    """Philox4x32-10 gives the words that its authors published."""
    low, high = (int(word, 16) for word in key.split())
    counters = np.array([[int(word, 16) for word in counter.split()]], np.uint32)
    found = philox(high << 32 | low, counters)
    assert " ".join(f"{word:08x}" for word in found[0]) == answer


@settings(deadline=None, max_examples=50)
@given(key=st.integers(0, 2**63 - 1), keys=st.lists(st.tuples(IDS, VIEWS), min_size=1, max_size=8), data=st.data())
def test_words_depend_on_their_name_alone(key: int, keys: list[tuple[int, int]], data: st.DataObject) -> None:
    """A sample's random words don't change with the batch around it, its place in it, or how many are asked."""
    ids, views = (np.array(each, np.int64) for each in zip(*keys, strict=True))
    together = words(key, ids, views, 12)
    place = data.draw(st.integers(0, len(keys) - 1))
    alone = words(key, ids[place : place + 1], views[place : place + 1], 7)
    assert np.array_equal(together[place, :7], alone[0])


@settings(deadline=None, max_examples=50)
@given(id_=IDS, view=VIEWS, key=st.integers(0, 2**63 - 1))
def test_words_differ_with_each_part_of_the_name(id_: int, view: int, key: int) -> None:
    """Another sample, another view or another key draws other words."""
    ids = np.array([id_, id_ ^ 1, id_ ^ 2**40, id_], np.int64)
    views = np.array([view, view, view, view ^ 1], np.int64)
    rows = {row.tobytes() for row in words(key, ids, views, 4)} | {words(key ^ 1, ids[:1], views[:1], 4).tobytes()}
    assert len(rows) == 5


@settings(deadline=None, max_examples=50)
@given(word=st.integers(0, 2**32 - 1), bound=st.integers(1, 2**31))
def test_below_stays_below(word: int, bound: int) -> None:
    """A word is mapped into [0, bound)."""
    assert 0 <= below(np.array([word], np.uint32), bound)[0] < bound


def test_below_is_uniform() -> None:
    """Every value below a bound comes up about equally often."""
    drawn = below(words(1, np.arange(20_000), np.zeros(20_000, np.int64), 1), 7)
    counts = np.bincount(drawn[:, 0], minlength=7)
    assert counts.min() > 20_000 / 7 * 0.9
    assert counts.max() < 20_000 / 7 * 1.1


def test_subseeds_are_what_they_always_were() -> None:
    """The derivation of seeds has changed: every run would change with it."""
    assert subseed(0, "order") == 3278857439845718984
    assert subseed(7, "student", 2) == 4645286198048298858
    assert subseed(0, "a") != subseed(0, "b") != subseed(1, "b")

"""Questions to teachers in other processes: what goes out comes back, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.foundation.errors import StillhouseError
from stillhouse.teachers.messages import pack, unpack


@given(
    keys=st.lists(st.tuples(st.integers(0, 2**62), st.integers(-1, 2**40)), max_size=9),
    shape=st.none() | st.lists(st.integers(1, 3), min_size=1, max_size=3),
    image=st.booleans(),
)
def test_a_question_comes_back(keys: list[tuple[int, int]], shape: list[int] | None, image: bool) -> None:
    """Keys and pixels survive the way, whatever their number, shape and type."""
    ids, views = (np.array([key[part] for key in keys], np.int64) for part in (0, 1))
    inputs = None
    if shape is not None:
        values = torch.arange(len(keys) * int(np.prod(shape))).reshape(len(keys), *shape) % 251
        inputs = values.to(torch.uint8) if image else values.float() / 7
    found_ids, found_views, found = unpack(pack(ids, views, inputs))
    assert found_ids.tolist() == ids.tolist() and found_views.tolist() == views.tolist()
    assert (found is None) == (inputs is None)
    if inputs is not None and found is not None:
        assert found.dtype == inputs.dtype and torch.equal(found, inputs)


@given(st.binary(max_size=60))
def test_noise_is_refused(message: bytes) -> None:
    """Bytes that are no question give an error of ours, never another."""
    try:
        ids, views, _ = unpack(message)
    except StillhouseError:
        return
    assert len(ids) == len(views)


def test_a_bomb_is_not_unpacked() -> None:
    """Compressed pixels are unpacked to the size that the question names, and no further."""
    whole = pack(np.zeros(1, np.int64), np.zeros(1, np.int64), torch.zeros(1, 1000, 1000, dtype=torch.uint8))
    small = pack(np.zeros(1, np.int64), np.zeros(1, np.int64), torch.zeros(1, 20, 20, dtype=torch.uint8))
    head = 4 * 5 + 16
    with pytest.raises(StillhouseError):
        unpack(small[:head] + b"\0" * 3)
    assert unpack(small[:head] + whole[head:])[2].shape == (1, 20, 20)  # type: ignore[union-attr]


def test_only_pixels_that_shrink_are_compressed() -> None:
    """What compressing would not halve goes as it is: it costs more time than the bytes that it saves."""
    keys, noise = np.zeros(4, np.int64), np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), np.uint8)
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8), noise.shape)
    told = {name: len(pack(keys, keys, torch.from_numpy(each.copy()))) for name, each in (("n", noise), ("s", smooth))}
    assert told["n"] == noise.nbytes + 4 * 6 + 2 * keys.nbytes and told["s"] < noise.nbytes // 4

"""Encodings: a row is a function of its own numbers alone, of one width, and what fits into none is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.foundation.errors import RecipeError, StillhouseError
from stillhouse.knowledge.ask import NOTHING, Ask
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.knowledge import Knowledge

from .answers import FORMS, SHAPES, answer, codec, random_answer, top


@pytest.mark.parametrize("encoding", FORMS, ids=str)
@given(st.lists(st.integers(0, 30), min_size=0, max_size=40))
@settings(max_examples=15, deadline=None)
def test_rows_depend_on_nothing_but_themselves(encoding: Encoding, rows: list[int]) -> None:
    """A row has the same bytes alone, twice, in any batch and in any place of it."""
    known = random_answer(31)
    assert known.logits is not None
    whole = codec(encoding).encode(known)
    picked = Knowledge(
        known.sample_ids[rows], known.views[rows], known.logits[rows], {n: f[rows] for n, f in known.features.items()}
    )
    assert np.array_equal(codec(encoding).encode(picked), whole[rows])


def test_rows_of_many_classes_depend_on_nothing_but_themselves() -> None:
    """One row among 64 has the bytes that it has alone, where sums are long enough to be split over threads."""
    logits = torch.from_numpy(np.random.default_rng(3).normal(0, 3, (64, 5003)).astype(np.float32))
    wide = Codec(Ask(), Encoding("top", 7), 5003, {})
    whole = wide.encode(answer(logits))
    strided = logits.T.contiguous().T
    assert np.array_equal(wide.encode(answer(strided)), whole)
    for row in (0, 13, 63):
        assert np.array_equal(wide.encode(answer(logits[row : row + 1])), whole[row : row + 1])


@pytest.mark.parametrize("encoding", FORMS, ids=str)
@given(st.integers(0, 1000), st.sampled_from([0.0, 1.0, -30.0, 1e4, 3e7]), st.sampled_from([0.0, 1e-6, 1.0, 500.0]))
@settings(max_examples=40, deadline=None)
def test_a_second_time_changes_nothing(encoding: Encoding, seed: int, level: float, spread: float) -> None:
    """An answer that was decoded once decodes to the same bits again; dense rows are the same bytes, too."""
    if encoding.logits == "fp16":
        level = min(level, 1e4)
    known = random_answer(6, seed)
    assert known.logits is not None
    scaled = answer(known.logits / 4 * spread + level, **known.features)
    one = codec(encoding)
    once = one.round_trip(scaled)
    twice = one.round_trip(once)
    assert once.logits is not None and twice.logits is not None
    assert torch.equal(once.logits, twice.logits)
    assert all(torch.equal(once.features[name], twice.features[name]) for name in SHAPES)
    if encoding.logits != "top":
        assert np.array_equal(one.encode(once), one.encode(scaled))


@pytest.mark.parametrize(("classes", "bytes_index"), [(256, 1), (257, 2), (65536, 2), (65537, 4), (70000, 4)])
def test_class_numbers_never_overflow(classes: int, bytes_index: int) -> None:
    """The last class of many survives the narrow index, and the index is as narrow as it can be."""
    logits = np.zeros((2, classes), np.float32)
    logits[0, -1], logits[1, classes // 2 + 3] = 9, 7
    found = top(logits, 2)
    assert found[0, -1] == 9 and found[1, classes // 2 + 3] == 7 and found.argmax(axis=1)[0] == classes - 1
    np.testing.assert_allclose(found, logits, atol=0.005)
    assert Codec(Ask(), Encoding("top", 2), classes, {}).row["top_index"].itemsize == 2 * bytes_index


def test_more_kept_than_classes_is_refused() -> None:
    """Asking for more logits than there are classes is refused with both numbers, unless logits aren't asked for."""
    with pytest.raises(RecipeError, match=r"12 largest.*only 10 classes: set k to at most 10"):
        codec(Encoding("top", 12))
    assert Codec(NOTHING, Encoding("top", 12), 10, {}).row.itemsize == 0


@pytest.mark.parametrize("encoding", FORMS, ids=str)
def test_no_rows_are_fine(encoding: Encoding) -> None:
    """An answer about no views goes there and back, with the right shapes."""
    one = codec(encoding)
    none = random_answer(0)
    rows = one.encode(none)
    assert rows.shape == (0, one.row.itemsize)
    back = one.decode(rows, none.sample_ids, none.views)
    assert back.logits is not None and back.logits.shape == (0, 10)
    assert {name: tuple(each.shape) for name, each in back.features.items()} == {n: (0, *s) for n, s in SHAPES.items()}
    assert one.kl_bound(rows, 2.0).shape == (0,)


def test_nothing_asked_is_nothing_kept() -> None:
    """The empty question has rows of no bytes, and keys survive."""
    known = random_answer(3)
    back = Codec(NOTHING, Encoding(), 10, {}).round_trip(known)
    assert back.logits is None and not back.features
    assert np.array_equal(back.sample_ids, known.sample_ids) and np.array_equal(back.views, known.views)


@pytest.mark.parametrize("encoding", FORMS, ids=str)
def test_rows_are_packed_and_named(encoding: Encoding) -> None:
    """Fields follow each other without a hole, little-endian, modules sorted by name whatever the question's order."""
    one = codec(encoding)
    names = one.row.names or ()
    assert sum(one.row[name].itemsize for name in names) == one.row.itemsize
    assert [name for name in names if name.startswith("feature:")] == ["feature:early", "feature:late"]
    assert one.row == Codec(Ask(features=("early", "late")), encoding, 10, SHAPES).row
    assert all(one.row[name].base.str[0] in "<|" for name in names)
    rows = one.encode(random_answer(4))
    assert rows.dtype == np.uint8 and rows.shape == (4, one.row.itemsize) and rows.flags.c_contiguous
    scales = {name: one.row[name].shape for name in names if name.startswith("scale:")}
    assert scales == ({"scale:early": (3,), "scale:late": ()} if encoding.features == "int8" else {})


def test_only_what_is_asked_is_kept() -> None:
    """Logits and modules that an answer holds beyond the question are left out."""
    back = Codec(Ask(False, ("late",)), Encoding(), 10, SHAPES).round_trip(random_answer(3))
    assert back.logits is None and list(back.features) == ["late"]


@pytest.mark.parametrize("encoding", FORMS, ids=str)
def test_decoded_answers_are_their_own(encoding: Encoding) -> None:
    """Rows that can't be written, and have gaps between them, decode to tensors that can, and stay as they were."""
    one = codec(encoding)
    known = random_answer(4)
    wide = np.zeros((4, one.row.itemsize + 5), np.uint8)
    wide[:, 3:-2] = one.encode(known)
    before = wide.copy()
    wide.flags.writeable = False
    back = one.decode(wide[:, 3:-2], known.sample_ids, known.views)
    assert back.logits is not None
    for each in (back.logits, *back.features.values()):
        each.add_(1)
    assert np.array_equal(wide, before)


def test_answers_of_any_float_are_taken() -> None:
    """bf16 numbers and tensors with a gradient are encoded like the same numbers in fp32."""
    known = random_answer(4)
    assert known.logits is not None
    short = known.logits.bfloat16()
    one = Codec(Ask(), Encoding("top", 3), 10, {})
    assert np.array_equal(one.encode(answer(short.requires_grad_())), one.encode(answer(short.detach().float())))


@pytest.mark.parametrize("encoding", FORMS, ids=str)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["logits", "late", "early"])
def test_numbers_that_are_not_finite_are_refused(encoding: Encoding, wrong: float, where: str) -> None:
    """A NaN or infinity anywhere is refused with its part, sample and view."""
    known = random_answer(5)
    part = known.logits if where == "logits" else known.features[where]
    assert part is not None
    part[3].view(-1)[2] = wrong
    told = "logits" if where == "logits" else f"feature '{where}'"
    with pytest.raises(StillhouseError, match=rf"^{told} of sample 103, view 5: {wrong} in the teacher's answer"):
        codec(encoding).encode(known)


@pytest.mark.parametrize("wrong", [65520.0, -7e4, 3e38])
def test_numbers_too_large_for_fp16_are_refused(wrong: float) -> None:
    """A number beyond fp16 is refused with its part, sample and view, and taken by the other forms."""
    for where, told in (("logits", "logits"), ("late", "feature 'late'")):
        known = random_answer(5)
        part = known.logits if where == "logits" else known.features[where]
        assert part is not None
        part[3, 2] = wrong
        with pytest.raises(StillhouseError, match=rf"^{told} of sample 103, view 5: .* beyond 65504.* as fp32"):
            codec(Encoding("fp16")).encode(known)
        codec(Encoding("fp32", features="fp32")).encode(known)
        codec(Encoding("fp32", features="int8")).encode(known)


@pytest.mark.parametrize("k", [2, 9, 10])
def test_logits_too_far_apart_are_refused(k: int) -> None:
    """Top-k refuses a range beyond fp16 with sample and view; a common level of any size is no obstacle."""
    known = random_answer(5)
    assert known.logits is not None
    known.logits[2] *= 1e5
    with pytest.raises(StillhouseError, match=r"^range of logits of sample 102, view 4: .* beyond 65504.* as fp32"):
        codec(Encoding("top", k)).encode(known)
    known.logits[2] = known.logits[1] + 1e6
    codec(Encoding("top", k)).encode(known)


def test_answers_to_other_questions_are_refused() -> None:
    """An answer without the logits or module asked for, or of another shape, is refused with what was expected."""
    one, known = codec(Encoding()), random_answer(3)
    bare = Knowledge(known.sample_ids, known.views, None, known.features)
    with pytest.raises(StillhouseError, match=r"should hold logits of shape \[3, 10\], but there is none"):
        one.encode(bare)
    with pytest.raises(StillhouseError, match=r"feature 'early' of shape \[3, 3, 2, 2\], but there is none"):
        one.encode(Knowledge(known.sample_ids, known.views, known.logits))
    with pytest.raises(StillhouseError, match=r"logits of shape \[3, 7\], but there is shape \[3, 10\]"):
        codec(Encoding(), 7).encode(known)
    with pytest.raises(ValueError, match="bytes a row"):
        one.decode(np.zeros((3, 7), np.uint8), known.sample_ids, known.views)


@pytest.mark.parametrize("wrong", [("top", 0), ("fp32", 3), ("top", -1), ("bf16", 0), ("fp32", 0, "fp8")])
def test_senseless_encodings_are_refused(wrong: tuple[str, int]) -> None:
    """An unknown form, top without a number and a number without top are refused."""
    with pytest.raises(ValueError, match=r"fp16|'top' only"):
        Encoding(*wrong)  # type: ignore[arg-type]


def test_descriptions_tell_encodings_apart() -> None:
    """A description survives JSON, and two encodings that differ have two descriptions."""
    told = [json.dumps(each.describe()) for each in FORMS]
    assert len(set(told)) == len(FORMS)
    assert all(json.loads(text) == each.describe() for text, each in zip(told, FORMS, strict=True))

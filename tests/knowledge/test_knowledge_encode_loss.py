"""Encodings: how far what is decoded can be from what the teacher said, in its own numbers and in KL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from stillhouse.foundation.errors import StillhouseError
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec, Encoding, k_for_mass
from stillhouse.knowledge.encode_logits import _largest

from .answers import answer, few, floats, kl, log_softmax, only_feature, top

FP16_SUBNORMAL = 2.0**-25


@few
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(6)), elements=floats(3.4e38)))
def test_fp32_keeps_every_bit(values: NDArray[np.float32]) -> None:
    """fp32 gives logits and features back bit by bit, subnormal numbers and negative zeros included."""
    both = Codec(Ask(features=("f",)), Encoding(features="fp32"), 6, {"f": (6,)})
    back = both.round_trip(answer(values, f=values))
    assert back.logits is not None
    for found in (back.logits, back.features["f"]):
        assert found.dtype == torch.float32
        assert np.array_equal(found.numpy().view(np.uint32), values.view(np.uint32))


@few
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(6)), elements=floats(65504)))
def test_fp16_stays_within_its_bound(values: NDArray[np.float32]) -> None:
    """fp16 is off by at most 2^-11 of a number, or 2^-25 where numbers are subnormal, in logits and features."""
    both = Codec(Ask(features=("f",)), Encoding("fp16"), 6, {"f": (6,)})
    back = both.round_trip(answer(values, f=values))
    assert back.logits is not None
    for found in (back.logits, back.features["f"]):
        error = np.abs(found.numpy().astype(np.float64) - values)
        assert np.all(error <= np.maximum(2.0**-11 * np.abs(values.astype(np.float64)), FP16_SUBNORMAL))


@few
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 3), st.just(3), st.just(4)), elements=floats(3.4e38)))
def test_int8_stays_within_its_bound(values: NDArray[np.float32]) -> None:
    """int8 is off by at most 1/254 of the channel's largest magnitude, which it keeps exactly, as it keeps zeros."""
    one, known = only_feature(values, "int8")
    found = one.round_trip(known).features["f"].numpy()
    largest = np.abs(values).max(axis=2, keepdims=True)
    error = np.abs(found.astype(np.float64) - values)
    assert np.all(error <= largest.astype(np.float64) / 254 * (1 + 4e-5) + 2.0**-149)
    kept = (np.abs(values) == largest) | (values == 0)
    assert np.array_equal(found[kept], values[kept])


@pytest.mark.parametrize("largest", [1e-45, 1e-38, 1.0, 3.4e38])
def test_int8_holds_any_scale(largest: float) -> None:
    """The scales of two channels of one sample, and of two flat samples, don't touch each other, however extreme."""
    channels = np.array([[[largest, -largest], [1, 0.5], [0, 0]]], np.float32)
    one, known = only_feature(channels, "int8")
    np.testing.assert_allclose(one.round_trip(known).features["f"], channels, rtol=0.01)
    flat = np.array([[largest, 0, -largest], [3, 3, 0]], np.float32)
    one, known = only_feature(flat, "int8")
    assert np.array_equal(one.round_trip(known).features["f"], flat)


@few
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.sampled_from([-1, -0.0, 0, 2]))
)
def test_ties_go_to_the_lower_class(logits: NDArray[np.float32]) -> None:
    """Of equal logits the lower class is kept and comes first, at the border as well; 0 equals -0."""
    wanted = np.argsort(-logits, axis=1, kind="stable")
    for k in range(1, logits.shape[1] + 1):
        one = Codec(Ask(), Encoding("top", k), logits.shape[1], {})
        found = one.encode(answer(logits)).view(one.row)["top_index"].reshape(len(logits), k)
        assert np.array_equal(found, wanted[:, :k])


def test_both_ways_to_rank_agree() -> None:
    """On a CPU numpy ranks, elsewhere torch: the same keys, the same answer."""
    values = torch.from_numpy(np.random.default_rng(0).integers(-4, 4, (50, 33)).astype(np.float32) / 3)
    bits = values.view(torch.int32)
    key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() * 2**32 + torch.arange(32, -1, -1)
    assert torch.equal(_largest(values, 9), key.topk(9, dim=1).indices)
    assert torch.equal(_largest(values, 9), torch.sort(values, dim=1, descending=True, stable=True).indices[:, :9])


@few
@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([0.01, 1.0, 8.0, 100.0]), st.data())
def test_top_keeps_what_it_says(seed: int, classes: int, spread: float, data: st.DataObject) -> None:
    """The largest logit comes back exactly, k gaps within fp16's bound, all others equal, of the right log-sum-exp."""
    k = data.draw(st.integers(1, classes))
    logits = (np.random.default_rng(seed).standard_t(3, (4, classes)) * spread).clip(-3e4, 3e4).astype(np.float32)
    found = top(logits, k)
    order = np.argsort(-logits, axis=1, kind="stable")
    ranked, back = np.take_along_axis(logits, order, 1), np.take_along_axis(found, order, 1)
    assert np.array_equal(ranked[:, 0], back[:, 0])
    gap = (ranked[:, :1] - ranked).astype(np.float64)
    slack = np.maximum(gap * 2.0**-11, FP16_SUBNORMAL) + np.abs(logits).max() * 2.0**-22
    assert np.all(np.abs(ranked - back)[:, :k] <= slack[:, :k])
    assert np.all(np.diff(back, axis=1) <= 0) and np.all(back[:, k:] == back[:, k : k + 1])
    if k < classes:
        with np.errstate(divide="ignore"):
            rest, back_rest = (np.logaddexp.reduce(each[:, k:].astype(np.float64), axis=1) for each in (ranked, back))
        assert np.all(np.abs(rest - back_rest) <= (ranked[:, 0] - rest + 20) * 2.0**-11 + slack[:, 0])


def test_a_confident_teacher_keeps_its_rest() -> None:
    """The rest's mass is right to 2 %, though it is too small to be told from one minus the kept mass."""
    logits = np.zeros((1, 1000), np.float32)
    logits[0, [500, 3]] = 40, 38
    rest = np.exp(log_softmax(top(logits, 2)))[0, np.arange(1000) == 7].item() * 998
    assert rest == pytest.approx(998 * np.exp(-40) / (1 + np.exp(-2)), rel=0.02)
    at_8 = np.exp(log_softmax(top(logits, 2), 8.0))
    np.testing.assert_allclose(at_8, np.exp(log_softmax(logits, 8.0)), rtol=3e-3)


def test_all_classes_kept_is_nearly_dense() -> None:
    """With k equal to the number of classes there is no rest, and every logit is within fp16 of its gap."""
    logits = np.random.default_rng(1).normal(0, 5, (20, 10)).astype(np.float32)
    np.testing.assert_allclose(top(logits, 10), logits, atol=0.02)
    assert "rest_gap" not in (Codec(Ask(), Encoding("top", 10), 10, {}).row.names or ())
    assert np.array_equal(top(logits[:, :1], 1), logits[:, :1])


def teacher_logits(kind: str, rows: int, classes: int, generator: np.random.Generator) -> NDArray[np.float32]:
    logits = generator.normal(0, 3, (rows, classes))
    if kind == "flat":
        logits *= 1e-3
    elif kind == "peaked":
        logits[np.arange(rows), generator.integers(0, classes, rows)] += 25
    elif kind == "heavy":
        logits = generator.standard_t(2, (rows, classes)) * 3
    elif kind == "two-level":
        logits = np.where(generator.random((rows, classes)) < generator.random((rows, 1)), 5.0, -60.0)
    elif kind == "steep":
        logits = -np.sort(generator.exponential(20, (rows, classes)), axis=1)
    return logits.clip(-2e4, 2e4).astype(np.float32)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(["random", "flat", "peaked", "heavy", "two-level", "steep"]),
    st.sampled_from([2, 3, 10, 100, 1000]),
    st.sampled_from([0.0, 50.0, -3000.0]),
    st.integers(0, 10**6),
    st.data(),
)
def test_kl_never_exceeds_its_bound(kind: str, classes: int, level: float, seed: int, data: st.DataObject) -> None:
    """KL from the teacher's soft targets to the decoded ones is within the bound told from the row, at any T."""
    form = data.draw(st.sampled_from(["fp32", "fp16", "top", "top", "top"]))
    k = data.draw(st.integers(1, min(classes, 40))) if form == "top" else 0
    logits = teacher_logits(kind, 4, classes, np.random.default_rng(seed)) + np.float32(level)
    one = Codec(Ask(), Encoding(form, k), classes, {})  # type: ignore[arg-type]
    known = answer(logits)
    rows = one.encode(known)
    back = one.decode(rows, known.sample_ids, known.views).logits
    assert back is not None
    for temperature in (0.5, 0.9, 1.0, 1.3, 2.0, 4.0, 20.0):
        found, bound = kl(logits, back.numpy(), temperature), one.kl_bound(rows, temperature)
        assert np.all(np.isfinite(bound))
        assert np.all(found <= bound + 1e-13 * classes), (temperature, found, bound)


@pytest.mark.parametrize(("temperature", "gap"), [(1.0, 0.5), (1.0, 3.0), (2.0, 1.0), (4.0, 0.5), (4.0, 1.0)])
def test_kl_bound_is_reached(temperature: float, gap: float) -> None:
    """The bound is tight: a rest half as high as the last kept logit, half at nothing, comes within 3 % of it."""
    logits = np.full((1, 104), -200.0, np.float32)
    logits[0, :4] = np.arange(4, 0, -1) * np.float32(gap)
    logits[0, 4:54] = logits[0, 3]
    one = Codec(Ask(), Encoding("top", 4), 104, {})
    bound = one.kl_bound(one.encode(answer(logits)), temperature)
    assert kl(logits, top(logits, 4), temperature) == pytest.approx(bound, rel=0.03)


def test_k_for_mass_is_the_smallest() -> None:
    """The k found keeps the mass asked for, on average over the rows, and k - 1 doesn't."""
    probabilities = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.125, 0.125, 0.125, 0.625]], dtype=torch.float64)
    logits = probabilities.log() + 7  # mean of the sorted: 0.5625, 0.1875, 0.125, 0.125
    found = [k_for_mass(logits, mass) for mass in (0.01, 0.5625, 0.5626, 0.75, 0.76, 0.875, 0.88, 0.999999)]
    assert found == [1, 1, 2, 2, 3, 3, 4, 4]
    assert k_for_mass(torch.zeros(2, 10), 0.5) == 5


def test_k_for_mass_refuses_nonsense() -> None:
    """A mass of nothing or all, no rows, or rows that are not finite are refused."""
    for mass in (0.0, 1.0, 2.0):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            k_for_mass(torch.zeros(2, 3), mass)
    for logits in (torch.zeros(0, 3), torch.tensor([[0.0, float("nan")]])):
        with pytest.raises(StillhouseError, match="all of them finite"):
            k_for_mass(logits, 0.5)

"""Losses against formulas written down a second time, in numpy float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillhouse.students import losses

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 7)), elements=st.floats(-30, 30, width=32))
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0, 4.0, 20.0])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def kd_by_hand(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    log_s, log_t = log_softmax(student / temperature), log_softmax(teacher / temperature)
    return float(temperature**2 * (np.exp(log_t) * (log_t - log_s)).sum(axis=1).mean())


@settings(max_examples=50, deadline=None)
@given(LOGITS, TEMPERATURES)
def test_kd_of_equals_is_zero(logits: np.ndarray, temperature: float) -> None:
    """KL(p, p) is 0, exactly: the loss is a divergence, not a cross-entropy."""
    values = torch.from_numpy(logits)
    assert losses.kd(values, values.clone(), temperature).item() == 0.0


@settings(max_examples=100, deadline=None)
@given(LOGITS, TEMPERATURES, st.integers(0, 100))
def test_kd_is_the_formula(student: np.ndarray, temperature: float, seed: int) -> None:
    """The loss is T^2 mean KL(p_t || p_s) as computed in float64, and never below zero by more than rounding."""
    teacher = np.random.default_rng(seed).normal(0, 3, student.shape).astype(np.float32)
    found = losses.kd(torch.from_numpy(student), torch.from_numpy(teacher), temperature).item()
    wanted = kd_by_hand(student, teacher, temperature)
    assert found == pytest.approx(wanted, rel=1e-4, abs=2e-5 * temperature**2)
    assert found >= -1e-6 * temperature**2


@settings(max_examples=50, deadline=None)
@given(LOGITS, TEMPERATURES, st.floats(-20, 20, width=32), st.floats(-20, 20, width=32))
def test_kd_ignores_a_shift_of_logits(logits: np.ndarray, temperature: float, one: float, other: float) -> None:
    """Adding a constant to all logits of a network changes no probability and so no loss."""
    student, teacher = torch.from_numpy(logits), torch.from_numpy(logits[:, ::-1].copy())
    plain = losses.kd(student, teacher, temperature).item()
    shifted = losses.kd(student + one, teacher + other, temperature).item()
    assert shifted == pytest.approx(plain, rel=1e-3, abs=1e-4 * temperature**2)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
def test_gradient_of_kd(temperature: float) -> None:
    """The gradient by a student's logit is T/B (p_s - p_t)."""
    student, teacher = normal(6, 5).double().requires_grad_(), normal(6, 5, seed=1)
    losses.kd(student, teacher, temperature).backward()  # type: ignore[no-untyped-call]
    p_s, p_t = ((each.detach().double() / temperature).softmax(1) for each in (student, teacher))
    torch.testing.assert_close(student.grad, temperature / 6 * (p_s - p_t), rtol=1e-4, atol=1e-6)


def test_size_of_the_gradient_hardly_depends_on_the_temperature() -> None:
    """T^2 does its work: from T 4 to T 64 the gradient's norm changes by less than a fifth, not 16- or 256-fold."""
    sizes = []
    for temperature in (4.0, 16.0, 64.0):
        student = normal(32, 10).requires_grad_()
        losses.kd(student, normal(32, 10, seed=1), temperature).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    assert max(sizes) / min(sizes) < 1.2


def test_kd_at_high_temperature_compares_logits() -> None:
    """For T to infinity kd is the squared distance of the centred logits over 2 K (arXiv 1503.02531, equation 4)."""
    student, teacher = normal(8, 5), normal(8, 5, seed=1)
    centred = [each - each.mean(1, keepdim=True) for each in (student, teacher)]
    limit = ((centred[0] - centred[1]) ** 2).sum(1).mean() / (2 * 5)
    assert losses.kd(student.double(), teacher.double(), 100.0).item() == pytest.approx(limit.item(), rel=0.02)


def test_teacher_gets_no_gradient() -> None:
    """Neither loss sends a gradient into what the teacher said."""
    teacher, student = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    (losses.kd(student, teacher, 2.0) + losses.feature_mse(student, teacher)).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_the_formula(smoothing: float) -> None:
    """Cross-entropy is -sum q log p with q = (1 - a) one-hot + a / K."""
    logits, targets = normal(7, 4) * 3, torch.tensor([0, 1, 2, 3, 0, 1, 2])
    q = (1 - smoothing) * np.eye(4)[targets.numpy()] + smoothing / 4
    wanted = -(q * log_softmax(logits.numpy())).sum(1).mean()
    assert losses.cross_entropy(logits, targets, smoothing).item() == pytest.approx(wanted, rel=1e-6)


def test_feature_mse_is_a_mean() -> None:
    """feature_mse is the mean of squared differences over every element, and 0 for equals."""
    ours, theirs = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    wanted = ((ours.numpy().astype(np.float64) - theirs.numpy()) ** 2).mean()
    assert losses.feature_mse(ours, theirs).item() == pytest.approx(wanted, rel=1e-6)
    assert losses.feature_mse(ours, ours.clone()).item() == 0.0


def test_feature_mse_refuses_to_broadcast() -> None:
    """Features of different shapes are an error, never silently broadcast."""
    with pytest.raises(ValueError, match="shape"):
        losses.feature_mse(normal(3, 1, 4, 4), normal(3, 2, 4, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_half_precision_are_computed_in_fp32(dtype: torch.dtype) -> None:
    """Half-precision logits give the loss of the same values in fp32, to the last bit."""
    student, teacher = (normal(5, 4, seed=seed).to(dtype) for seed in (0, 1))
    targets = torch.tensor([0, 1, 2, 3, 0])
    assert losses.kd(student, teacher, 4.0) == losses.kd(student.float(), teacher.float(), 4.0)
    assert losses.cross_entropy(student, targets) == losses.cross_entropy(student.float(), targets)


def test_extreme_logits_stay_finite() -> None:
    """Logits of +-1e4 give a finite loss and finite gradients."""
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = losses.kd(student, torch.tensor([[-1e4, 1e4, 0.0]]), 1.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite() and student.grad is not None and losses.is_finite(student.grad)

"""Losses as pure functions of tensors.

Notation, in formulas and names alike:

    B  views in the batch          K  classes             T  temperature
    z_s, z_t  logits of student and teacher [B, K]        y  class numbers [B]
    p_t = softmax(z_t / T),  p_s = softmax(z_s / T)

Every loss is a mean over the batch, in nats where it is an entropy, computed in fp32 whatever comes in.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_NEVER = -1e9  # a logit of what can't be; infinity would have no gradient
_SAME = 1e-4  # of less than this length nobody can say where it points


def cross_entropy(
    student_logits_BK: Tensor,
    targets_B: Tensor,
    label_smoothing: float = 0.0,
    partners_B: Tensor | None = None,
    shares_B: Tensor | None = None,
) -> Tensor:
    """Cross-entropy on labels: ``-mean_B (s log softmax(z_s)[y] + (1 - s) log softmax(z_s)[y'])``; s = 1 unmixed.

    Args:
        student_logits_BK: [B, K].
        targets_B: [B] int64.
        label_smoothing: share of the target spread evenly over all classes (arXiv 1512.00567).
        partners_B: y', [B] int64, classes of what was mixed in (arXiv 1710.09412); None with ``shares_B``.
        shares_B: s, [B], 0..1.

    Returns:
        A scalar, nats.
    """
    logits_BK = student_logits_BK.float()
    if partners_B is None or shares_B is None:
        return F.cross_entropy(logits_BK, targets_B, label_smoothing=label_smoothing)
    own_B, other_B = (
        F.cross_entropy(logits_BK, labels_B, reduction="none", label_smoothing=label_smoothing)
        for labels_B in (targets_B, partners_B)
    )
    return (shares_B * own_B + (1 - shares_B) * other_B).mean()


def kd(student_logits_BK: Tensor, teacher_logits_BK: Tensor, temperature: float) -> Tensor:
    """Soft targets: ``T^2 mean_B KL(p_t || p_s)`` (Hinton et al., arXiv 1503.02531, section 2).

    T^2 keeps the gradient's size the same over temperatures. It is a divergence: zero where both agree, unlike
    the cross-entropy that some libraries return under this name.

    Args:
        student_logits_BK: [B, K].
        teacher_logits_BK: [B, K]; no gradient flows into it.
        temperature: T > 0.

    Returns:
        A scalar >= 0, nats times T^2.
    """
    log_ps_BK = F.log_softmax(student_logits_BK.float() / temperature, dim=1)
    log_pt_BK = F.log_softmax(teacher_logits_BK.detach().float() / temperature, dim=1)
    return F.kl_div(log_ps_BK, log_pt_BK, reduction="batchmean", log_target=True) * temperature**2


def decoupled_kd(
    student_logits_BK: Tensor, teacher_logits_BK: Tensor, targets_B: Tensor, temperature: float, non_target: float
) -> Tensor:
    """Decoupled KD: ``T^2 mean_B (KL(b_t || b_s) + w KL(q_t || q_s))`` (Zhao et al., arXiv 2203.08679, equation 7).

    b: the label's class against all others; q: the distribution over the other classes alone. In :func:`kd` the second
    part has the weight that the teacher leaves them, so the surer it is, the less they teach.

    Args:
        student_logits_BK: [B, K].
        teacher_logits_BK: [B, K]; no gradient flows into it.
        targets_B: [B] int64, one label for each view.
        temperature: T > 0.
        non_target: w, of the other classes; the label's part has weight 1.

    Returns:
        A scalar >= 0, nats times T^2.
    """
    own_BK = F.one_hot(targets_B, student_logits_BK.shape[1]).bool()
    student_BK = student_logits_BK.float() / temperature
    teacher_BK = teacher_logits_BK.detach().float() / temperature

    def parts(scaled_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities: [B, 2] of the label's class and of all others; [B, K] of each other among them."""
        others_BK = scaled_BK.masked_fill(own_BK, _NEVER)
        others_B, all_B = others_BK.logsumexp(1), scaled_BK.logsumexp(1)
        own_B = scaled_BK.gather(1, targets_B[:, None])[:, 0]
        return torch.stack([own_B - all_B, others_B - all_B], 1), others_BK - others_B[:, None]

    (log_bs_B2, log_qs_BK), (log_bt_B2, log_qt_BK) = parts(student_BK), parts(teacher_BK)
    binary = F.kl_div(log_bs_B2, log_bt_B2, reduction="batchmean", log_target=True)
    others = F.kl_div(log_qs_BK, log_qt_BK, reduction="batchmean", log_target=True)
    return (binary + non_target * others) * temperature**2


def correlated_kd(student_logits_BK: Tensor, teacher_logits_BK: Tensor, temperature: float) -> Tensor:
    """Correlations in place of equality: ``T^2 (2 - mean_B r(p_s, p_t) - mean_K r(p_s', p_t'))`` (DIST, Huang et al.,
    arXiv 2205.10536, equations 8 to 10).

    r: Pearson's correlation, over a sample's classes and, of the transposed (p'), over the batch's samples of a class.
    A student need not be as sure as its teacher; the second part depends on who is in the batch.

    Args:
        student_logits_BK: [B, K].
        teacher_logits_BK: [B, K]; no gradient flows into it.
        temperature: T > 0.

    Returns:
        A scalar, 0 to 4 times T^2.
    """
    student_BK = F.softmax(student_logits_BK.float() / temperature, dim=1)
    teacher_BK = F.softmax(teacher_logits_BK.detach().float() / temperature, dim=1)

    def apart(ours: Tensor, theirs: Tensor) -> Tensor:
        ours, theirs = (each - each.mean(1, keepdim=True) for each in (ours, theirs))
        return 1 - F.cosine_similarity(ours, theirs, dim=1, eps=_SAME).mean()

    return (apart(student_BK, teacher_BK) + apart(student_BK.T, teacher_BK.T)) * temperature**2


def feature_mse(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared error of activations (FitNets, arXiv 1412.6550, equation 3, here a mean, not a sum).

    Args:
        student_features: [B, ...], already brought to the teacher's shape by an adapter.
        teacher_features: the same shape; no gradient flows into it.

    Returns:
        A scalar >= 0, in the teacher's activation units squared.
    """
    if student_features.shape != teacher_features.shape:
        raise ValueError(f"features of shape {tuple(student_features.shape)} and {tuple(teacher_features.shape)}")
    return squared_error(student_features.float(), teacher_features.float()) / teacher_features.numel()


def squared_error(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Sum of squared differences, a scalar; both of one shape. No gradient flows into ``wanted``."""
    total: Tensor = _SquaredError.apply(outputs, wanted)  # type: ignore[no-untyped-call]
    return total


def is_finite(value: Tensor) -> bool:
    """Whether every element is finite."""
    return bool(torch.isfinite(value).all())


class _SquaredError(torch.autograd.Function):
    """The gradient has the layout of ``outputs``.

    That of F.mse_loss, or of any mean, is contiguous: behind channels-last outputs everything that it goes back through
    is then several times slower.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, wanted: Tensor) -> Tensor:
        apart = outputs - wanted
        ctx.save_for_backward(apart)
        total: Tensor = torch.linalg.vector_norm(apart).square()
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (apart,) = ctx.saved_tensors
        return apart * (2 * gradient), None

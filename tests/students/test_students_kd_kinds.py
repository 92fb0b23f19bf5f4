"""Other ways to learn from a teacher's logits than their divergence: against formulas written down a second time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillhouse.foundation.errors import RecipeError
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.recipe.load import parse
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.students import losses
from stillhouse.students.objective import Objective

from .test_students_losses import TEMPERATURES, kd_by_hand, normal

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(2, 5), st.integers(3, 7)), elements=st.floats(-9, 9, width=32))
TARGETS = torch.tensor([2, 0, 1, 2])


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    values = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64) / temperature)
    return values / values.sum(axis=1, keepdims=True)


@settings(max_examples=80, deadline=None)
@given(LOGITS, TEMPERATURES, st.integers(0, 100), st.sampled_from([0.5, 1.0, 8.0]))
def test_decoupled_is_the_formula(student: np.ndarray, temperature: float, seed: int, weight: float) -> None:
    """T^2 times the divergence of (label, rest), and w times that of the rest among themselves."""
    dice = np.random.default_rng(seed)
    teacher = dice.normal(0, 3, student.shape).astype(np.float32)
    targets = dice.integers(0, student.shape[1], len(student))
    wanted = 0.0
    for row, target in enumerate(targets):
        p_s, p_t = (probabilities(each[row : row + 1], temperature)[0] for each in (student, teacher))
        rest = np.arange(len(p_s)) != target
        b_s, b_t = (np.array([each[target], each[rest].sum()]) for each in (p_s, p_t))
        q_s, q_t = (each[rest] / each[rest].sum() for each in (p_s, p_t))
        wanted += (b_t * np.log(b_t / b_s)).sum() + weight * (q_t * np.log(q_t / q_s)).sum()
    given_ = torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(targets)
    found = losses.decoupled_kd(*given_, temperature, weight).item()
    assert found == pytest.approx(temperature**2 * wanted / len(student), rel=2e-3, abs=1e-3 * temperature**2)


@settings(max_examples=50, deadline=None)
@given(LOGITS, TEMPERATURES, st.integers(0, 100))
def test_kd_is_decoupled_kd_with_the_teachers_doubt_as_weight(
    logits: np.ndarray, temperature: float, seed: int
) -> None:
    """The paper's equation 6: KL(p_t || p_s) = KL(b_t || b_s) + (1 - p_t[y]) KL(q_t || q_s)."""
    dice = np.random.default_rng(seed)
    student, teacher = logits[:1], dice.normal(0, 3, (1, logits.shape[1])).astype(np.float32)
    target = int(dice.integers(0, logits.shape[1]))
    doubt = 1 - float(probabilities(teacher, temperature)[0, target])
    given_ = torch.from_numpy(student), torch.from_numpy(teacher), torch.tensor([target])
    found = losses.decoupled_kd(*given_, temperature, doubt).item()
    assert found == pytest.approx(kd_by_hand(student, teacher, temperature), rel=2e-3, abs=1e-3 * temperature**2)


@settings(max_examples=80, deadline=None)
@given(LOGITS, st.sampled_from([1.0, 2.0, 4.0]), st.integers(0, 100))
def test_correlated_is_the_formula(student: np.ndarray, temperature: float, seed: int) -> None:
    """One minus the mean correlation of rows, and of columns, where they have a length."""
    teacher = np.random.default_rng(seed).normal(0, 3, student.shape).astype(np.float32)
    student = student + np.random.default_rng(seed + 1).normal(0, 3, student.shape).astype(np.float32)
    p_s, p_t = probabilities(student, temperature), probabilities(teacher, temperature)

    def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
        pairs = zip(ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), strict=True)
        least = 1e-4
        sizes = [(a @ b, max(np.linalg.norm(a), least) * max(np.linalg.norm(b), least)) for a, b in pairs]
        return float(np.mean([1 - product / size for product, size in sizes]))

    wanted = temperature**2 * (apart(p_s, p_t) + apart(p_s.T, p_t.T))
    found = losses.correlated_kd(torch.from_numpy(student), torch.from_numpy(teacher), temperature).item()
    assert found == pytest.approx(wanted, rel=1e-3, abs=2e-3 * temperature**2)


def test_a_student_may_be_less_sure() -> None:
    """Of probabilities that are the teacher's, drawn towards equal ones, correlation asks nothing; divergence does."""
    teacher = normal(16, 10, seed=1) * 3
    student = (0.3 * teacher.softmax(1) + 0.07).log()
    assert losses.correlated_kd(student, teacher, 1.0).item() == pytest.approx(0, abs=1e-5)
    assert losses.kd(student, teacher, 1.0).item() > 0.1


@pytest.mark.parametrize("kind", ["kl", "dkd", "dist"])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_values_and_gradients_are_finite_and_the_teachers_has_none(kind: str, size: float) -> None:
    """Of a student that knows nothing yet, or is surer than fp32 can say; equal ones lose nothing."""
    objective = Objective(ObjectiveSection.model_validate({"cross_entropy": 0, "kd": {"kind": kind, "weight": 1.0}}))
    student, teacher = (size * normal(4, 3)).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    ids = TARGETS.numpy()
    total, parts = objective(student, {}, Knowledge(ids, ids, teacher, {}), TARGETS)
    total.backward()
    assert list(parts) == ["kd"] and total.isfinite() and total.item() > 0
    assert student.grad is not None and student.grad.isfinite().all() and teacher.grad is None
    same = objective(student, {}, Knowledge(ids, ids, student.detach(), {}), TARGETS)[0]
    assert same.item() == pytest.approx(0, abs=1e-4) or size == 0.0  # of equal ones that say nothing DIST knows nothing


BASE = """\
data: {source: {kind: digits}}
teacher: {model: {arch: mlp}, train: {}}
student: {model: {arch: mlp}}
"""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("objective: {kd: {kind: dist, non_target: 2}}", "non_target: only kind dkd has one, not dist"),
        ("objective: {kd: {kind: rkd}}", "'objective.kd.kind': must be 'kl', 'dkd' or 'dist'"),
        ("objective: {kd: {kind: dkd, non_target: 0}}", "'objective.kd.non_target': must be greater than 0"),
    ],
)
def test_what_is_no_kind_of_kd(lines: str, words: str) -> None:
    """Told with its key."""
    with pytest.raises(RecipeError) as refused:
        parse(BASE + lines)
    assert words in str(refused.value)


def test_a_mixed_view_has_no_one_label() -> None:
    """Decoupled KD is about one label; the others don't care."""
    mixed = BASE.replace("kind: digits}", "kind: digits}, augment: {mix: {kind: mixup}}")
    with pytest.raises(RecipeError, match=r"data.augment.mix \(mixup\) gives it two: use kl or dist"):
        parse(mixed + "objective: {kd: {kind: dkd}}")
    for kind in ("kl", "dist"):
        found = parse(mixed + f"objective: {{kd: {{kind: {kind}}}}}").objective.kd
        assert found is not None and found.kind == kind


def test_decoupled_kd_wants_all_classes() -> None:
    """What the largest logits leave out is what it is most about."""
    top = "knowledge: {logits: {kind: top, k: 3}}\n"
    with pytest.raises(RecipeError, match=r"dkd is most about the classes that knowledge\.logits: top leaves out"):
        parse(BASE + top + "objective: {kd: {kind: dkd}}")
    assert parse(BASE + top + "objective: {kd: {kind: dist}}").objective.asks

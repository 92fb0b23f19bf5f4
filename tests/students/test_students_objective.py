"""The weighted objective and its adapters."""

from __future__ import annotations

import pytest
import torch

from stillhouse.foundation.errors import ModelError
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.students import losses
from stillhouse.students.objective import LABELS_ONLY, Objective

TARGETS = torch.tensor([0, 1, 2, 0])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def section(**values: object) -> ObjectiveSection:
    return ObjectiveSection.model_validate(values)


def known(logits: torch.Tensor | None = None, **features: torch.Tensor) -> Knowledge:
    ids = TARGETS.numpy()
    return Knowledge(ids, ids, logits, features)


def pair(student: tuple[int, ...], teacher: tuple[int, ...]) -> Objective:
    wanted = section(cross_entropy=0, kd=None, features=[{"student": "s", "teacher": "t"}])
    torch.manual_seed(0)
    return Objective(wanted, 0.0, {"s": student}, {"t": teacher})


def test_parts_sum_up_to_the_total() -> None:
    """The total is the sum of weight times part, and the parts logged are unweighted and detached."""
    wanted = section(
        cross_entropy=0.3,
        kd={"weight": 0.6, "temperature": 3.0},
        features=[{"student": "s", "teacher": "t", "weight": 0.25}],
    )
    objective = Objective(wanted, 0.1, {"s": (2, 4, 4)}, {"t": (5, 4, 4)})
    logits, teacher = normal(4, 3).requires_grad_(), normal(4, 3, seed=1)
    knowledge = known(teacher, t=normal(4, 5, 4, 4, seed=3))
    total, parts = objective(logits, {"s": normal(4, 2, 4, 4, seed=2)}, knowledge, TARGETS)
    assert list(parts) == ["cross_entropy", "kd", "features.s->t"]
    assert not any(part.requires_grad for part in parts.values())
    assert parts["cross_entropy"] == losses.cross_entropy(logits, TARGETS, 0.1)
    assert parts["kd"] == losses.kd(logits, teacher, 3.0)
    wanted_total = 0.3 * parts["cross_entropy"] + 0.6 * parts["kd"] + 0.25 * parts["features.s->t"]
    torch.testing.assert_close(total.detach(), wanted_total)


def test_parts_of_weight_zero_are_not_asked_for() -> None:
    """A part of weight 0 is neither computed nor asked of the teacher."""
    objective = Objective(section(cross_entropy=1.0, kd={"weight": 0.0}))
    assert not objective.ask
    assert list(objective(normal(4, 3), {}, known(), TARGETS)[1]) == ["cross_entropy"]
    assert not Objective(LABELS_ONLY).ask


def test_ask_names_what_is_needed_once() -> None:
    """Two terms on one teacher module ask for it once."""
    terms = [{"student": "a", "teacher": "t"}, {"student": "b", "teacher": "t"}]
    shapes = {"a": (4,), "b": (4,), "t": (4,)}
    objective = Objective(section(features=terms), 0.0, shapes, shapes)
    assert objective.ask.features == ("t",) and objective.ask.logits
    assert objective.student_taps == ("a", "b")


def test_adapter_is_learned_without_touching_the_teacher() -> None:
    """The adapter and the student's features get a gradient, the teacher's do not."""
    objective = pair((2, 4, 4), (5, 4, 4))
    student, teacher = normal(4, 2, 4, 4).requires_grad_(), normal(4, 5, 4, 4, seed=1).requires_grad_()
    objective(normal(4, 3), {"s": student}, known(t=teacher), TARGETS)[0].backward()
    (weight,) = objective.parameters()
    assert weight.shape == (5, 2, 1, 1)
    assert weight.grad is not None and student.grad is not None and teacher.grad is None


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 8, 8), (2, 4, 4)), ((2, 4, 4), (2, 8, 8)), ((2, 8, 4), (2, 4, 8))]
)
def test_other_sizes_are_pooled_to_the_smaller(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    """Height and width that differ are average-pooled to the smaller of each before they are compared."""
    objective = pair(student, teacher)
    torch.nn.init.eye_(next(objective.parameters()).detach()[:, :, 0, 0])
    ours, theirs = normal(4, *student), normal(4, *teacher, seed=1)

    def pooled(values: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = values.shape
        return values.reshape(batch, channels, 4, height // 4, 4, width // 4).mean(dim=(3, 5))

    total, _ = objective(normal(4, 3), {"s": ours}, known(t=theirs), TARGETS)
    torch.testing.assert_close(total.detach(), ((pooled(ours) - pooled(theirs)) ** 2).mean())


def test_vectors_go_through_a_linear_adapter() -> None:
    """Flat features of different width are compared through a linear layer."""
    objective = pair((6,), (9,))
    (weight,) = objective.parameters()
    ours, theirs = normal(4, 6), normal(4, 9, seed=1)
    total, _ = objective(normal(4, 3), {"s": ours}, known(t=theirs), TARGETS)
    torch.testing.assert_close(total, ((ours @ weight.T - theirs) ** 2).mean())


@pytest.mark.parametrize(("student", "teacher"), [((6,), (9, 4, 4)), ((2, 4, 4), (9,)), ((3, 4), (3, 4))])
def test_pairs_that_cannot_be_compared_are_refused(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    """A vector against a map, or neither, is a ModelError that names both modules and their shapes."""
    with pytest.raises(ModelError, match=r"student 's' gives \[.*teacher 't'"):
        pair(student, teacher)


def test_features_of_a_bf16_student_fit_their_adapter() -> None:
    """Activations that come in bfloat16 are compared in fp32."""
    objective = pair((2, 4, 4), (5, 4, 4))
    total, _ = objective(normal(4, 3), {"s": normal(4, 2, 4, 4).bfloat16()}, known(t=normal(4, 5, 4, 4)), TARGETS)
    assert total.dtype == torch.float32


WEIGHTS = {"cross_entropy": 0.3, "kd": {"weight": 0.6, "temperature": 3.0}}


def partly(rows: list[bool]) -> tuple[torch.Tensor, Knowledge]:
    """Logits to differentiate, and answers of which only some are known; the others are nonsense."""
    answers = normal(4, 3, seed=1)
    mask = torch.tensor(rows)
    answers[~mask] = 1e6
    ids = TARGETS.numpy()
    return normal(4, 3).requires_grad_(), Knowledge(ids, ids, answers, {}, mask)


def test_all_known_is_as_ever() -> None:
    """A mask that is all true changes nothing."""
    logits, knowledge = partly([True] * 4)
    objective = Objective(section(**WEIGHTS))
    whole, _ = objective(logits, {}, known(knowledge.logits), TARGETS)
    torch.testing.assert_close(objective(logits, {}, knowledge, TARGETS)[0], whole)


def test_views_without_an_answer_learn_their_labels() -> None:
    """They weigh as much as others; what stands in their rows is never looked at."""
    logits, knowledge = partly([True, False, True, False])
    total, parts = Objective(section(**WEIGHTS))(logits, {}, knowledge, TARGETS)
    rows = torch.tensor([0, 2])
    answered, _ = Objective(section(**WEIGHTS))(logits[rows], {}, knowledge.select(rows), TARGETS[rows])
    alone = losses.cross_entropy(logits[[1, 3]], TARGETS[[1, 3]])
    torch.testing.assert_close(total, 0.5 * answered + 0.5 * 0.9 * alone)
    assert parts["labels_alone"] == alone


@pytest.mark.parametrize("rows", [[True, False, True, False], [False] * 4])
def test_views_without_an_answer_may_be_left_out(rows: list[bool]) -> None:
    """Left out, they move no weight, even if there are no others."""
    logits, knowledge = partly(rows)
    total, _ = Objective(section(**WEIGHTS), leaves_out_unknown=True)(logits, {}, knowledge, TARGETS)
    total.backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=1) > 0).tolist() == rows

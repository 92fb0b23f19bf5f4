"""The loss on labels of mixed views: two labels a row, weighed by what the row shows of each."""

from __future__ import annotations

import torch

from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.students import losses
from stillhouse.students.objective import LABELS_ONLY, Objective

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 1.0, 1.0]])
OWN, PARTNERS = torch.tensor([0, 1, 2]), torch.tensor([2, 2, 0])


def test_each_label_weighs_what_is_shown_of_it() -> None:
    """Share times the own class's loss plus the rest times the partner's, in nats; smoothing goes to both."""
    shares = torch.tensor([1.0, 0.25, 0.0])
    for smoothing in (0.0, 0.1):
        each = [losses.cross_entropy(LOGITS[n : n + 1], OWN[n : n + 1], smoothing) for n in range(3)]
        other = [losses.cross_entropy(LOGITS[n : n + 1], PARTNERS[n : n + 1], smoothing) for n in range(3)]
        expected = (each[0] + 0.25 * each[1] + 0.75 * other[1] + other[2]) / 3
        torch.testing.assert_close(losses.cross_entropy(LOGITS, OWN, smoothing, PARTNERS, shares), expected)


def test_views_that_are_not_mixed_have_the_usual_loss() -> None:
    """A share of one, or a partner of the same class, changes nothing."""
    plain = losses.cross_entropy(LOGITS, OWN)
    for partners, shares in ((PARTNERS, torch.ones(3)), (OWN, torch.tensor([0.3, 0.0, 0.9]))):
        torch.testing.assert_close(losses.cross_entropy(LOGITS, OWN, 0.0, partners, shares), plain)


def test_the_loss_is_fp32_whatever_comes_in() -> None:
    """Half precision logits of mixed views give an fp32 loss."""
    assert losses.cross_entropy(LOGITS.half(), OWN, 0.0, PARTNERS, torch.full((3,), 0.5)).dtype == torch.float32


def test_the_objective_hands_shares_to_the_labels_alone() -> None:
    """Mixing changes the loss on labels and leaves that on the teacher's answer, which is about the mix already."""
    ids, shares = OWN.numpy(), torch.tensor([0.9, 0.5, 0.2])
    knowledge = Knowledge(ids, ids, torch.roll(LOGITS, 1, 0))
    objective = Objective(ObjectiveSection(), 0.1)
    plain, mixed = objective(LOGITS, {}, knowledge, OWN)[1], objective(LOGITS, {}, knowledge, OWN, PARTNERS, shares)[1]
    assert mixed["cross_entropy"] == losses.cross_entropy(LOGITS, OWN, 0.1, PARTNERS, shares) != plain["cross_entropy"]
    assert mixed["kd"] == plain["kd"]
    total, parts = Objective(LABELS_ONLY)(LOGITS, {}, knowledge, OWN, PARTNERS, shares)
    assert total == parts["cross_entropy"] == losses.cross_entropy(LOGITS, OWN, 0.0, PARTNERS, shares)

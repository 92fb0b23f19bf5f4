"""The weighted objective: which losses, with what weights, each logged apart.

A module, because feature terms hold learned adapters: a 1x1 convolution (a linear layer for flat features)
from the student's width to the teacher's, trained with the student and thrown away afterwards. Where the two
differ in height or width, both are average-pooled to the smaller.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.foundation.errors import ModelError
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.recipe.objective import NON_TARGET, FeatureTerm, KDTerm, ObjectiveSection
from stillhouse.students import losses

LABELS_ONLY = ObjectiveSection(cross_entropy=1.0, kd=None)
"""What teachers in training and controls minimise."""


class StepObjective(nn.Module, abc.ABC):
    """What a training minimises; the loop of ``students.fit`` knows no more of it."""

    @property
    @abc.abstractmethod
    def ask(self) -> Ask:
        """What it needs to know from a teacher."""

    @property
    @abc.abstractmethod
    def student_taps(self) -> tuple[str, ...]:
        """Modules of the student whose activations are needed."""

    @abc.abstractmethod
    def part_names(self, *, partly: bool) -> tuple[str, ...]:
        """The parts that it may tell; ``partly``: of knowledge that need not be known."""


class Objective(StepObjective):
    """Sum over the parts of weight times loss.

    Args:
        section: the parts and their weights.
        label_smoothing: of the cross-entropy.
        student_shapes, teacher_shapes: shape [C, H, W] or [D] of one sample's activation, by module name, for
            the feature terms.
        leaves_out_unknown: whether views without an answer teach nothing; else they teach their labels, at the weight
            of cross-entropy and KD together.

    Attributes:
        teacher_shapes: of the teacher's activations that are asked for.
    """

    def __init__(
        self,
        section: ObjectiveSection,
        label_smoothing: float = 0.0,
        student_shapes: Mapping[str, Sequence[int]] | None = None,
        teacher_shapes: Mapping[str, Sequence[int]] | None = None,
        leaves_out_unknown: bool = False,
    ) -> None:
        super().__init__()
        self._leaves_out_unknown = leaves_out_unknown
        self._section = section
        self._label_smoothing = label_smoothing
        self.teacher_shapes = {term.teacher: tuple((teacher_shapes or {})[term.teacher]) for term in section.features}
        self._adapters = nn.ModuleList(
            _adapter(term, (student_shapes or {})[term.student], (teacher_shapes or {})[term.teacher])
            for term in section.features
        )

    @property
    def ask(self) -> Ask:
        """What this objective needs to know from a teacher."""
        kd = self._section.kd
        features = tuple(sorted({term.teacher for term in self._section.features}))
        return Ask(logits=kd is not None and kd.weight > 0, features=features)

    @property
    def student_taps(self) -> tuple[str, ...]:
        """Modules of the student whose activations are needed."""
        return tuple(sorted({term.student for term in self._section.features}))

    def part_names(self, *, partly: bool) -> tuple[str, ...]:
        """The parts that :meth:`forward` may tell; ``partly``: of knowledge that need not be known."""
        section = self._section
        names = ["cross_entropy"] if section.cross_entropy > 0 else []
        names += ["kd"] if self.ask.logits else []
        names += [_part_name(term) for term in section.features]
        return (*names, "labels_alone") if partly and not self._leaves_out_unknown else tuple(names)

    def forward(
        self,
        logits_BK: Tensor,
        features: Mapping[str, Tensor],
        knowledge: Knowledge,
        targets_B: Tensor,
        partners_B: Tensor | None = None,
        shares_B: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each part unweighted and detached, by name.

        Args:
            logits_BK: the student's.
            features: the student's activations by module name.
            knowledge: the teacher's answer to :attr:`ask` about the same views.
            targets_B: class numbers.
            partners_B, shares_B: of the same rows of the batch; None where views are not mixed.
        """
        if knowledge.known is not None:
            return self._partly_known(logits_BK, features, knowledge, targets_B, partners_B, shares_B)
        parts: dict[str, Tensor] = {}
        total = torch.zeros((), device=logits_BK.device)
        if self._section.cross_entropy > 0:
            smoothing = self._label_smoothing
            parts["cross_entropy"] = losses.cross_entropy(logits_BK, targets_B, smoothing, partners_B, shares_B)
            total = total + self._section.cross_entropy * parts["cross_entropy"]
        if self._section.kd is not None and self._section.kd.weight > 0:
            assert knowledge.logits is not None
            parts["kd"] = _kd(self._section.kd, logits_BK, knowledge.logits, targets_B)
            total = total + self._section.kd.weight * parts["kd"]
        for term, adapter in zip(self._section.features, self._adapters, strict=True):
            student, teacher = _same_size(features[term.student], knowledge.features[term.teacher])
            name = _part_name(term)
            parts[name] = losses.feature_mse(adapter(student.float()), teacher)
            total = total + term.weight * parts[name]
        return total, {name: part.detach() for name, part in parts.items()}

    def _partly_known(
        self,
        logits_BK: Tensor,
        features: Mapping[str, Tensor],
        knowledge: Knowledge,
        targets_B: Tensor,
        partners_B: Tensor | None,
        shares_B: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over all rows: the known ones as ever, the others by their labels or not at all."""
        known_B = knowledge.known
        assert known_B is not None
        rows_N, others_M = known_B.nonzero()[:, 0], (~known_B).nonzero()[:, 0]

        def of(rows: Tensor, values: Tensor | None) -> Tensor | None:
            return None if values is None else values[rows]

        share = len(rows_N) / max(len(known_B), 1)
        total, parts = logits_BK.sum() * 0.0, dict[str, Tensor]()
        if len(rows_N):
            told = {name: value[rows_N] for name, value in features.items()}
            mixed = of(rows_N, partners_B), of(rows_N, shares_B)
            answers = knowledge.select(rows_N)
            found, parts = self.forward(logits_BK[rows_N], told, answers, targets_B[rows_N], *mixed)
            total = total + share * found
        weight = self._section.cross_entropy + (self._section.kd.weight if self._section.kd is not None else 0.0)
        if len(others_M) and not self._leaves_out_unknown:
            mixed = of(others_M, partners_B), of(others_M, shares_B)
            loss = losses.cross_entropy(logits_BK[others_M], targets_B[others_M], self._label_smoothing, *mixed)
            parts = {"labels_alone": loss.detach(), **parts}
            total = total + (1 - share) * weight * loss
        return total, parts


def _kd(term: KDTerm, student_BK: Tensor, teacher_BK: Tensor, targets_B: Tensor) -> Tensor:
    match term.kind:
        case "kl":
            return losses.kd(student_BK, teacher_BK, term.temperature)
        case "dkd":
            weight = NON_TARGET if term.non_target is None else term.non_target
            return losses.decoupled_kd(student_BK, teacher_BK, targets_B, term.temperature, weight)
        case "dist":
            return losses.correlated_kd(student_BK, teacher_BK, term.temperature)


def _part_name(term: FeatureTerm) -> str:
    return f"features.{term.student}->{term.teacher}"


def _adapter(term: FeatureTerm, student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    if len(student) != len(teacher) or len(student) not in (1, 3):
        raise ModelError(
            f"objective.features: student '{term.student}' gives {list(student)} a sample, teacher '{term.teacher}' "
            f"{list(teacher)}: name two modules that both give [C, H, W] or both [D]"
        )
    if len(student) == 1:
        return nn.Linear(student[0], teacher[0], bias=False)
    return nn.Conv2d(student[0], teacher[0], kernel_size=1, bias=False)


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.ndim != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)

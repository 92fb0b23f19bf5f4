"""Blocks that were trained apart get used to each other: each learns to give the teacher's activation for what the
blocks before it give now that they are replaced (progressive distillation, IJCAI 2018), front to back in every pass.

No gradient crosses from a block to the one before it: each still learns a local task, of which only the input changes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from stillhouse.blocks.objective import distance
from stillhouse.blocks.partition import Block
from stillhouse.data.batch import Batch
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.students.objective import StepObjective


class Apart(nn.Sequential):
    """A network's body, no gradient between whose parts; its state dict is that of the sequence it is made of.

    Args:
        parts: lead and core of each block, see :func:`stillhouse.blocks.assemble.joined`.
        first: number of the first part that learns; those before it stay in evaluation mode.
    """

    def __init__(self, parts: nn.Sequential, first: int) -> None:
        super().__init__(OrderedDict(parts.named_children()))
        self._first = first

    def train(self, mode: bool = True) -> Self:
        """All parts but those that don't learn."""
        super().train(mode)
        for part in list(self)[: self._first]:
            part.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """What goes in -> what the last part gives."""
        for at, part in enumerate(self):
            with torch.set_grad_enabled(torch.is_grad_enabled() and at >= self._first):
                inputs = part(inputs.detach())
        return inputs


class ApartObjective(StepObjective):
    """The sum of the parts' distances from the teacher's activations (``blocks.objective``).

    Args:
        names: of the parts that learn; those of features of student and knowledge alike.
        cosine: weight of 1 - cosine.
    """

    def __init__(self, names: Sequence[str], cosine: float = 0.0) -> None:
        super().__init__()
        self._names, self._cosine = tuple(names), cosine

    @property
    def ask(self) -> Ask:
        """What the teacher's blocks put out."""
        return Ask(logits=False, features=self._names)

    @property
    def student_taps(self) -> tuple[str, ...]:
        """The parts."""
        return self._names

    def part_names(self, *, partly: bool) -> tuple[str, ...]:
        """The parts that :meth:`forward` tells."""
        return self._names

    def forward(
        self,
        outputs: Tensor,
        features: Mapping[str, Tensor],
        knowledge: Knowledge,
        targets_B: Tensor,
        partners_B: Tensor | None = None,
        shares_B: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and each part's distance detached."""
        parts = {name: distance(features[name], knowledge.features[name], self._cosine) for name in self._names}
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}


class Activations:
    """The teacher's activations, by a pass in this process; a source of knowledge for :class:`ApartObjective`.

    Args:
        preprocess: of the teacher.
        blocks: of the teacher by the names of the parts, in evaluation mode, on the device.
        ask: about which of them.
    """

    def __init__(self, preprocess: nn.Module, blocks: Mapping[str, Block], ask: Ask, device: torch.device) -> None:
        self.ask = ask
        self._preprocess, self._blocks, self._device = preprocess, blocks, device
        self._spent_s = 0.0

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Each batch with what the asked blocks put out."""
        for batch in batches:
            begun_s = time.perf_counter()
            features = {}
            with torch.no_grad():
                outputs = self._preprocess(batch.inputs.to(self._device))
                for name, block in self._blocks.items():
                    outputs = block.forward(outputs)
                    if name in self.ask.features:
                        features[name] = outputs
            self._spent_s += time.perf_counter() - begun_s
            yield batch, Knowledge(batch.sample_ids, batch.views, features=features)

    def waits(self) -> dict[str, float]:
        """Seconds spent in the teacher since the last call."""
        spent_s, self._spent_s = self._spent_s, 0.0
        return {"teacher": spent_s}

    def counts(self) -> dict[str, int]:
        """Nothing is counted."""
        return {}

"""How much a teacher suffers when blocks of it are replaced: measured on samples that no replacement was trained on.

Norms are measured anew for every mix (DNA, CVPR 2020), in copies of their own: what is judged is left as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.blocks.assemble import joined
from stillhouse.blocks.norms import recalibrate
from stillhouse.blocks.partition import Block


@dataclass(frozen=True)
class Score:
    """How a changed teacher answers.

    Attributes:
        harm: mean KL(teacher || changed) of the classes' probabilities, nats.
        accuracy: share of samples classified rightly, 0..1.
    """

    harm: float
    accuracy: float


@dataclass(frozen=True)
class Samples:
    """Inputs of a network's body.

    Attributes:
        calibration: batches by which norms are measured, of training samples.
        judged: yields (inputs, labels), batches of validation samples; always the same.
        check: called often; may raise to end the work.
    """

    calibration: Sequence[Tensor]
    judged: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    check: Callable[[], None] = lambda: None


def judge_alone(
    blocks: Sequence[Block],
    trained: Sequence[Mapping[str, nn.Module]],
    samples: Samples,
    judged: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Score]]:
    """Swap each replacement alone into the teacher.

    The teacher's part before a block is passed once for all of its replacements.

    Args:
        blocks: of the teacher, in evaluation mode.
        trained: the replacements of each block by name, where the blocks are.
        judged: told of each block's, how many they are.

    Returns:
        For each block, by name.
    """
    found: list[dict[str, Score]] = []
    entries = list(samples.calibration)
    with torch.no_grad():
        answers = [_through(blocks, inputs) for inputs, _ in samples.judged()]
    for at, (block, others) in enumerate(zip(blocks, trained, strict=True)):
        with torch.no_grad():
            entries = [block.lead(each) for each in entries]
        rests = {name: _with_own_norms(_rest(module, blocks[at + 1 :])) for name, module in others.items()}
        for rest in rests.values():
            samples.check()
            recalibrate(rest, entries)
        tallies = {name: _Tally() for name in rests}
        with torch.no_grad():
            for (inputs, labels), answer in zip(samples.judged() if rests else (), answers, strict=False):
                entry = block.lead(_through(blocks[:at], inputs))
                for name, rest in rests.items():
                    samples.check()
                    tallies[name].add(rest(entry), answer, labels)
            entries = [block.core(each) for each in entries]
        found.append({name: tally.score() for name, tally in tallies.items()})
        judged(len(tallies))
    return found


def judge_mix(blocks: Sequence[Block], cores: Sequence[nn.Module], samples: Samples) -> Score:
    """Swap several blocks at once. Norms before the first that is replaced stay as they are.

    Args:
        cores: for each block what stands there.
    """
    changed = [at for at, (block, core) in enumerate(zip(blocks, cores, strict=True)) if core is not block.core]
    first = min(changed, default=len(blocks))
    before, after, tally = blocks[:first], joined(blocks[first:], cores[first:]), _Tally()
    mixed = _with_own_norms(after)
    with torch.no_grad():
        entries = [_through(before, inputs) for inputs in samples.calibration] if changed else []
        if changed:
            recalibrate(mixed, entries)
        for inputs, labels in samples.judged():
            samples.check()
            tally.add(mixed(_through(before, inputs)), _through(blocks, inputs), labels)
    return tally.score()


class _Tally:
    def __init__(self) -> None:
        self._harm, self._right, self._count = 0.0, 0, 0

    def add(self, logits: Tensor, answer: Tensor, labels: Tensor) -> None:
        told, wanted = F.log_softmax(logits.float(), 1), F.log_softmax(answer.float(), 1)
        self._harm += F.kl_div(told, wanted, reduction="sum", log_target=True).item()
        self._right += int((logits.argmax(1) == labels).sum())
        self._count += len(labels)

    def score(self) -> Score:
        return Score(self._harm / self._count, self._right / self._count)


def _through(blocks: Sequence[Block], inputs: Tensor) -> Tensor:
    for block in blocks:
        inputs = block.forward(inputs)
    return inputs


def _rest(core: nn.Module, after: Sequence[Block]) -> nn.Sequential:
    return nn.Sequential(core, *(part for block in after for part in (block.lead, block.core)))


def _with_own_norms(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares parameters, but not what norms keep."""
    shared = {id(each): each for each in module.parameters()}
    return copy.deepcopy(module, shared).eval()

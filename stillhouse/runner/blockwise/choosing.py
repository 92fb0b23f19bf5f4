"""The phase ``choose``: replacements are judged alone and together, and the best mix within the budget is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from torch import nn

from stillhouse.blocks.assemble import KEEP
from stillhouse.blocks.choose import Mix, Problem, best, front
from stillhouse.blocks.partition import Block
from stillhouse.blocks.score import Samples, Score, judge_mix
from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.blockwise import BlockwiseSection
from stillhouse.runner.blockwise.budget import Costs, limits, problem_of

_ROUNDS = 4
_FRONT = ("params", "macs", "latency_ms")
_POINTS = 8


@dataclass(frozen=True)
class Judged:
    """A mix that was put together, without any further training.

    Attributes:
        expected: its harm as the programme has it, nats.
    """

    mix: Mix
    expected: float
    score: Score
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """What was found.

    Attributes:
        limits: by measure.
        candidates: the best mixes within the limits; the chosen one first.
        fronts: by measure, mixes from the cheapest on, whatever the limits.
    """

    limits: Mapping[str, float]
    candidates: Sequence[Judged]
    fronts: Mapping[str, Sequence[Judged]]


@dataclass
class Chooser:
    """Looks for the best mix.

    Attributes:
        blocks: of the teacher, in evaluation mode.
        modules: trained replacements of each, by name.
        samples: to judge by.
    """

    blocks: Sequence[Block]
    modules: Sequence[Mapping[str, nn.Module]]
    costs: Costs
    samples: Samples
    _known: dict[Mix, Score] = field(default_factory=dict)

    def choose(
        self,
        alone: Sequence[Mapping[str, Score]],
        section: BlockwiseSection,
        judged: Callable[[int], None] = lambda count: None,
    ) -> Choice:
        """The best mix by what it does when it is put together, of those that promise most.

        Two neighbours that are chosen together are judged together, and what they do beyond the sum counts from then
        on, until the programme's choice has no pair that nobody looked at.

        Args:
            alone: what each replacement does alone.
            judged: told of mixes that may be chosen or are on a front, how many.

        Raises:
            RecipeError: so many replacements diverged that no mix meets the budget.
        """
        limited = limits(section.budget, self.costs)
        harms = [{name: each.harm for name, each in own.items()} for own in alone]
        problem = self._with_pairs(problem_of(self.costs, harms, limited), harms, section.candidates)
        found = [self._judged(mix, problem, judged) for mix in best(problem, section.candidates)]
        if not found:
            raise RecipeError("blockwise.budget: too many replacements diverged: what is left does not meet it")
        ranked = sorted(found, key=lambda each: each.score.harm)
        free = replace(problem, limits={})
        fronts = {name: [self._judged(mix, free, judged) for mix in front(free, name, _POINTS)] for name in _FRONT}
        return Choice(limited, ranked, fronts)

    def steps(self, section: BlockwiseSection) -> int:
        """How many mixes :meth:`choose` tells of, at most."""
        return section.candidates + len(_FRONT) * _POINTS

    def _with_pairs(self, problem: Problem, harms: Sequence[Mapping[str, float]], count: int) -> Problem:
        for _ in range(_ROUNDS):
            mixes = best(problem, count)
            new = {pair for mix in mixes for pair in _pairs(mix)} - problem.together.keys()
            if not new:
                break
            found = {(at, one, other): self._beyond(harms, at, one, other) for at, one, other in sorted(new)}
            problem = replace(problem, together={**problem.together, **found})
        return problem

    def _beyond(self, harms: Sequence[Mapping[str, float]], at: int, one: str, other: str) -> float:
        """What two neighbours do beyond what each does alone, nats."""
        mix = (KEEP,) * at + (one, other) + (KEEP,) * (len(self.blocks) - at - 2)
        return self.score(mix).harm - harms[at][one] - harms[at + 1][other]

    def _judged(self, mix: Mix, problem: Problem, judged: Callable[[int], None]) -> Judged:
        costs = {name: problem.cost(mix, name) for name in asdict(self.costs.whole)}
        found = Judged(mix, problem.harm(mix), self.score(mix), costs)
        judged(1)
        return found

    def score(self, mix: Mix) -> Score:
        """How good a mix is, put together without any further training; judged once."""
        if mix not in self._known:
            self._known[mix] = judge_mix(self.blocks, self.cores(mix), self.samples)
        return self._known[mix]

    def cores(self, mix: Mix) -> list[nn.Module]:
        """What stands for each block."""
        every = zip(self.blocks, self.modules, mix, strict=True)
        return [block.core if name == KEEP else modules[name] for block, modules, name in every]


def _pairs(mix: Mix) -> set[tuple[int, str, str]]:
    """Neighbours that are both replaced."""
    return {(at, mix[at], mix[at + 1]) for at in range(len(mix) - 1) if KEEP not in mix[at : at + 2]}


def first_replaced(mix: Mix) -> int:
    """Number of the first block that is not the teacher's; the number of blocks where none is."""
    return next((at for at, name in enumerate(mix) if name != KEEP), len(mix))

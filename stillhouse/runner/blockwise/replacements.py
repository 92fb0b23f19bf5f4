"""The phase ``blocks``: every replacement of every block is trained on the teacher's own activations.

All of them share the teacher's pass. Each keeps checkpoints of its own and is done when its weights are there, so that
none that is finished is ever trained again. One that diverges begins again at a third of its learning rate once the
others are done; after two such tries it is given up, and the block keeps what else it has. What finds no room in memory
beside the others is trained after them. Each such sweep is a phase: ``blocks``, ``blocks-1``, ...
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import nn

from stillhouse.blocks.cost import cost_of
from stillhouse.blocks.library.offers import offers
from stillhouse.blocks.partition import Block
from stillhouse.foundation.errors import DivergedError, RunDirError
from stillhouse.foundation.events import Event, Warned
from stillhouse.foundation.files import read_json, write_json
from stillhouse.foundation.seeding import subseed
from stillhouse.models.network import Network
from stillhouse.models.weights import read_weights
from stillhouse.recipe.blockwise import MEASURES, BudgetSection
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.blockwise.bench import Errand, Key
from stillhouse.runner.blockwise.crew import train_apart
from stillhouse.runner.blockwise.groups import groups, need_of
from stillhouse.runner.blockwise.sweep import sweep
from stillhouse.runner.energy import meter_of, metered
from stillhouse.runner.materials import Materials
from stillhouse.runner.phases import PhaseWeights
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.signals import Signals

PHASE = "blocks"
ATTEMPTS = 3
_SLOWER = 3.0
_LITTLE = 0.1

Offered = Sequence[Mapping[str, nn.Module]]
"""For each block what may stand there, by name, with initial weights."""


@dataclass(frozen=True)
class Trained:
    """What came of the trainings.

    Attributes:
        modules: of each block, by name, with their weights, in evaluation mode on the device; not those given up.
        stories: what became of those that diverged: a line for each attempt.
    """

    modules: Sequence[Mapping[str, nn.Module]]
    stories: Mapping[Key, Sequence[str]]


class Workshop:
    """Trains replacements.

    Args:
        teacher: trained, in evaluation mode, on the device.
        blocks: its blocks.
        offered: not changed.
    """

    def __init__(
        self,
        materials: Materials,
        folder: RunDir,
        teacher: Network,
        blocks: Sequence[Block],
        offered: Offered,
        emit: Callable[[Event], None],
        signals: Signals,
    ) -> None:
        self._materials, self._folder, self._teacher, self._blocks = materials, folder, teacher, blocks
        self._offered, self._emit, self._signals = offered, emit, signals
        self._groups = self._in_groups()
        self._stories_path = folder.path / "blocks" / "diverged.json"
        self._stories = self._read_stories()

    def trained(self) -> Trained:
        """Train what is not trained yet, and read all of it back.

        Raises:
            Interrupted: a signal came; checkpoints were written.
        """
        while left := self._left():
            attempt = min(map(self._attempts, left))
            wanted = {key for key in left if self._attempts(key) == attempt}
            number, group = next((at, each) for at, each in enumerate(self._groups) if wanted & set(each))
            self._train(attempt, attempt * len(self._groups) + number, [key for key in group if key in wanted])
        modules = []
        for block, others in zip(self._blocks, self._offered, strict=True):
            kept = {name: each for name, each in others.items() if self._attempts((block.name, name)) < ATTEMPTS}
            modules.append({name: self._with_weights((block.name, name), each) for name, each in kept.items()})
        return Trained(modules, self._stories)

    def _train(self, attempt: int, number: int, keys: Sequence[Key]) -> None:
        phase = PHASE if number == 0 else f"{PHASE}-{number}"
        self._signals.check(f"before {phase}")
        section = self._materials.recipe.blockwise
        assert section is not None
        optimizer = section.train.optimizer
        slower = optimizer.model_copy(update={"learning_rate": optimizer.learning_rate / _SLOWER**attempt})
        settings = section.train.model_copy(update={"optimizer": slower})
        modules = {key: self._offered[self._at(key)][key[1]] for key in keys}
        with metered(meter_of(self._materials.recipe), phase, self._emit) as tell:
            errand = Errand(
                phase,
                self._materials,
                self._folder,
                self._teacher,
                self._blocks,
                modules,
                section.model_copy(update={"train": settings}),
                tell,
                self._signals,
            )
            several = self._materials.recipe.fleet.block_workers > 1 and len(keys) * settings.accumulate > 1
            (train_apart if several else sweep)(errand, self._done, self._diverged)

    def _in_groups(self) -> list[list[Key]]:
        """All replacements, in groups that find room together; said where they are several."""
        section = self._materials.recipe.blockwise
        assert section is not None
        needs = {
            (block.name, name): need_of(module, block, section.train)
            for block, others in zip(self._blocks, self._offered, strict=True)
            for name, module in others.items()
        }
        found = groups(needs, section.memory_max_mb * 2**20)
        limit = f"more than {section.memory_max_mb:,} (blockwise.memory_max_mb)"
        if len(found) > 1:
            all_mb = sum(each.kept for each in needs.values()) / 2**20
            step_mb = max(each.step for each in needs.values()) / 2**20
            told = f"blocks: {len(needs)} replacements take {all_mb:,.1f} MB, a step of one some {step_mb:,.1f} more"
            self._emit(Warned(f"{told}, {limit}: they are trained in {len(found)} groups, one by one"))
        largest = max(needs, key=lambda key: sum(needs[key]), default=None)
        if largest is not None and (bytes_alone := sum(needs[largest])) > section.memory_max_mb * 2**20:
            told = f"blocks: {'/'.join(largest)} takes some {bytes_alone / 2**20:,.0f} MB by itself, {limit}"
            self._emit(Warned(f"{told}: a larger blockwise.train.accumulate or a smaller batch_size takes less"))
        return found

    def _done(self, key: Key, data: bytes) -> None:
        self._weights(key).write(data)

    def _diverged(self, key: Key, error: DivergedError) -> None:
        self._stories.setdefault(key, []).append(str(error))
        write_json(self._stories_path, [[*key, told] for key, told in self._stories.items()])
        given_up = self._attempts(key) == ATTEMPTS
        what = "given up" if given_up else "it begins again at a third of its learning rate"
        self._emit(Warned(f"{str(error).partition('. ')[0]}; {what}"))

    def _left(self) -> list[Key]:
        """Replacements that are to be trained."""
        left = []
        for block, others in zip(self._blocks, self._offered, strict=True):
            for key in ((block.name, name) for name, module in others.items() if _learns(module)):
                weights = self._weights(key)
                if weights.damaged():
                    self._emit(Warned(f"{weights.path} was damaged on disk: it is trained again"))
                    weights.remove()
                if not weights.done() and self._attempts(key) < ATTEMPTS:
                    left.append(key)
        return left

    def _with_weights(self, key: Key, module: nn.Module) -> nn.Module:
        made = copy.deepcopy(module)
        if _learns(module):
            made.load_state_dict(read_weights(self._weights(key).path))
        return made.to(self._materials.device).eval()

    def _attempts(self, key: Key) -> int:
        """Those that failed."""
        return len(self._stories.get(key, ()))

    def _weights(self, key: Key) -> PhaseWeights:
        return PhaseWeights(self._folder.weights(f"{PHASE}/{key[0]}/{key[1]}"))

    def _at(self, key: Key) -> int:
        return next(at for at, block in enumerate(self._blocks) if block.name == key[0])

    def _read_stories(self) -> dict[Key, list[str]]:
        if not self._stories_path.exists():
            return {}
        try:
            return {(block, name): told for block, name, told in read_json(self._stories_path)}
        except (RunDirError, ValueError, TypeError):
            self._emit(Warned(f"{self._stories_path} was damaged: what diverged is tried again"))
            return {}


def _learns(module: nn.Module) -> bool:
    """Whether there is anything to train; in a skip there is not."""
    return any(True for _ in module.parameters())


def offered(blocks: Sequence[Block], recipe: Recipe) -> Offered:
    """What the recipe's library offers; nothing for a block that saves as good as nothing of what the budget limits."""
    section = recipe.blockwise
    assert section is not None
    seed, found = subseed(recipe.seed, PHASE), list[dict[str, nn.Module]]()
    for block, saves in zip(blocks, _worth_it(blocks, section.budget), strict=True):
        made = offers(block, seed, section.library) if saves else []
        found.append({each.name: each.module for each in made})
    return found


def _worth_it(blocks: Sequence[Block], budget: BudgetSection) -> list[bool]:
    """Whether each costs a tenth of an average block in any measure that is limited; all do where time is limited."""
    if budget.latency_ms is not None:
        return [True] * len(blocks)
    limited = [name for name in MEASURES if getattr(budget, name) is not None]
    costs = [asdict(cost_of(block.core, block.in_shape, timed=False)) for block in blocks]
    least = {name: _LITTLE * sum(each[name] for each in costs) / len(blocks) for name in limited}
    return [any(each[name] >= least[name] for name in limited) for each in costs]

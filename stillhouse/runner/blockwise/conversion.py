"""From a trained teacher to the network that the student starts from: one phase after the other.

``costs.json``, ``choice.json`` and ``stages.json`` in the run's folder ``blocks`` hold what was measured; what is there
is not measured again.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from stillhouse.blocks.assemble import KEEP, cut, joined
from stillhouse.blocks.calibrate import Activations, Apart, ApartObjective
from stillhouse.blocks.choose import Mix
from stillhouse.blocks.cost import Cost
from stillhouse.blocks.norms import recalibrate
from stillhouse.blocks.partition import Block
from stillhouse.blocks.score import Samples, Score, judge_alone
from stillhouse.foundation.block_events import BlocksChosen
from stillhouse.foundation.errors import DivergedError
from stillhouse.foundation.events import Evaluated, Event, Warned
from stillhouse.models.network import Network
from stillhouse.models.weights import weights_bytes
from stillhouse.recipe.architectures import BlockwiseOptions, ModelSection, Normalisation
from stillhouse.recipe.blockwise import BlockwiseSection
from stillhouse.recipe.engines import AUTO
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.blockwise.bench import Key
from stillhouse.runner.blockwise.budget import Costs, check_reachable, measured
from stillhouse.runner.blockwise.choosing import Chooser, first_replaced
from stillhouse.runner.blockwise.judging import CHOOSE, Judging
from stillhouse.runner.blockwise.notes import Notes
from stillhouse.runner.blockwise.replacements import Offered, Trained, Workshop, offered
from stillhouse.runner.blockwise.samples import samples_of
from stillhouse.runner.energy import meter_of, metered
from stillhouse.runner.materials import Materials
from stillhouse.runner.phases import PhaseWeights, Trainer
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.signals import Signals

ASSEMBLED = "assembled"
_DOUBT = 0.2


@dataclass(frozen=True)
class Conversion:
    """Makes the student of a teacher's blocks.

    Attributes:
        teacher: trained; not changed.
    """

    materials: Materials
    folder: RunDir
    teacher: Network
    emit: Callable[[Event], None]
    signals: Signals

    def converted(self) -> Materials:
        """Do what is not done yet; the materials whose recipe says what the student is, and from what it starts.

        Raises:
            RecipeError: no mix meets the budget.
            Interrupted: a signal came.
        """
        start = PhaseWeights(self.folder.weights(ASSEMBLED))
        noted = [self._notes.read(name) is not None for name in ("costs", "choice", "stages")]
        if not start.done() or start.damaged() or not all(noted):
            start.write(weights_bytes(self._assembled()))
        recipe = self.materials.recipe
        mix = self._settled_mix
        if mix is None:
            choice = self._notes.read("choice")
            assert choice is not None
            mix = tuple(choice["candidates"][0]["mix"])
        model = self._student_model(mix)
        student = recipe.student.model_copy(update={"model": model})
        recipe = recipe.model_copy(update={"student": student})
        self.folder.resettle(recipe)
        networks = replace(self.materials.networks, recipe=recipe, start=start.path)
        return replace(self.materials, recipe=recipe, networks=networks)

    @property
    def _notes(self) -> Notes:
        return Notes(self.folder.path / "blocks", lambda message: self.emit(Warned(message)))

    @property
    def _settled_mix(self) -> Mix | None:
        """The mix that the recipe says, once it does."""
        mix = BlockwiseOptions.model_validate(self.materials.recipe.student.model.options).mix
        return None if mix == AUTO else mix

    @property
    def _section(self) -> BlockwiseSection:
        assert self.materials.recipe.blockwise is not None
        return self.materials.recipe.blockwise

    def _assembled(self) -> Network:
        """The chosen mix, its blocks used to each other."""
        channels_last = self._section.train.engine.channels_last is True
        layout = torch.channels_last if channels_last else torch.contiguous_format
        teacher = copy.deepcopy(self.teacher).eval()
        teacher.to(device=self.materials.device, memory_format=layout)  # type: ignore[call-overload]
        blocks = cut(teacher, self.materials.interface, self._section.blocks)
        others = offered(blocks, self.materials.recipe)
        costs = self._costs(blocks, others)
        trained = Workshop(self.materials, self.folder, teacher, blocks, others, self.emit, self.signals).trained()
        samples = samples_of(self.materials, teacher.preprocess, blocks, self.signals)
        chooser = Chooser(blocks, trained.modules, costs, samples)
        mix = self._mix(chooser, trained)
        body = copy.deepcopy(joined(blocks, chooser.cores(mix)))
        network = Network(copy.deepcopy(teacher.preprocess), body)
        first = first_replaced(mix)
        self._stage("assembled", network, samples, first)
        if self._section.calibrate_epochs and first < len(mix):
            names = [name for name, _ in body.named_children()]
            objective = ApartObjective(names[first:], self._section.cosine)
            told = dict(zip(names, blocks, strict=True))
            source = Activations(teacher.preprocess, told, objective.ask, self.materials.device)
            apart = Network(network.preprocess, Apart(body, first))
            trainer = Trainer(self.materials, self.folder, self.emit, self.signals)
            try:
                trainer.train("calibrate", apart, source, objective, self._calibration(), 0)
            except DivergedError as error:  # a step on the way, without which there is a student, too
                self.emit(Warned(f"{str(error).partition('. ')[0]}; the blocks stay as they were put together"))
            else:
                self._stage("calibrated", network, samples, first)
        return network

    def _mix(self, chooser: Chooser, trained: Trained) -> Mix:
        """The best mix: the one that an earlier process chose, or chosen now."""
        known = self._notes.read("choice")
        if known is None:
            with metered(meter_of(self.materials.recipe), CHOOSE, self.emit) as tell:
                judging = Judging(sum(map(len, trained.modules)) + chooser.steps(self._section), tell)
                alone = judge_alone(chooser.blocks, trained.modules, chooser.samples, judging.add)
                hopeless = _without_answers(chooser.blocks, alone)
                choice = chooser.choose(alone, self._section, judging.add)
                judging.end()
                self._doubt(chooser, alone)
            told = [{name: asdict(score) for name, score in own.items()} for own in alone]
            stories = [[*key, list(lines)] for key, lines in {**trained.stories, **hopeless}.items()]
            known = {**asdict(choice), "alone": told, "diverged": stories}
            self._notes.write("choice", known)
        mix = self._settled_mix or tuple(known["candidates"][0]["mix"])
        shares = chooser.costs.shares(mix)
        self.emit(BlocksChosen(tuple(each.name for each in chooser.blocks), mix, shares))
        return mix

    def _doubt(self, chooser: Chooser, alone: Sequence[dict[str, Score]]) -> None:
        """Norms are measured anew behind a replacement: where that makes it better than the teacher, the teacher's own
        don't fit what it sees.
        """
        best = max((each.accuracy for own in alone for each in own.values()), default=0.0)
        teacher = chooser.score((KEEP,) * len(chooser.blocks)).accuracy
        if best > teacher + _DOUBT:
            self.emit(
                Warned(
                    f"the teacher gets {100 * teacher:.1f} % of the scoring samples right, and {100 * best:.1f} % "
                    "with a block replaced and norms measured anew: was it trained to see what its model.normalise "
                    "says (auto: the data's own mean and deviation)?"
                )
            )

    def _costs(self, blocks: Sequence[Block], others: Offered) -> Costs:
        """Measured once in a run: latencies differ from time to time. What no budget is met with is not kept."""
        found = self._notes.read("costs")
        if found is None:
            costs = measured(blocks, others)
            check_reachable(self._section.budget, costs, others)
            found = asdict(costs) | {"blocks": [_form(each) for each in blocks]}
            self._notes.write("costs", found)
        options = [{name: Cost(**cost) for name, cost in own.items()} for own in found["options"]]
        return Costs(options, Cost(**found["whole"]))

    def _calibration(self) -> TrainSection:
        """The replacements' training, of another length."""
        train, epochs = self._section.train, self._section.calibrate_epochs
        return train.model_copy(update={"epochs": epochs, "warmup_epochs": min(train.warmup_epochs, epochs)})

    def _stage(self, name: str, network: Network, samples: Samples, first: int) -> None:
        """Measure norms anew from the first block that is replaced, look how good the network is, write that down."""
        body = network.body
        assert isinstance(body, nn.Sequential)
        with torch.no_grad():
            entries = [body[:first](inputs) for inputs in samples.calibration]
        recalibrate(body[first:], entries)
        found = Trainer(self.materials, self.folder, self.emit, self.signals).validate(network)
        self.emit(Evaluated(name, 0, 0.0, "validation", found.accuracy, found.loss))
        known = self._notes.read("stages") or {}
        self._notes.write("stages", {**known, name: {"accuracy": found.accuracy, "loss": found.loss}})

    def _student_model(self, mix: Sequence[str]) -> ModelSection:
        """What the student is, said so that it can be built anywhere; weights it has its own."""
        teacher = self.materials.recipe.teacher.model
        assert teacher is not None
        told = self.teacher.preprocess
        normalise = Normalisation(mean=tuple(told.mean.flatten().tolist()), std=tuple(told.std.flatten().tolist()))
        of = teacher.without_weights().model_copy(update={"normalise": normalise})
        made = BlockwiseOptions(of=of, blocks=self._section.blocks, mix=tuple(mix))
        return self.materials.recipe.student.model.model_copy(update={"options": made.model_dump(mode="json")})


def _without_answers(blocks: Sequence[Block], alone: Sequence[dict[str, Score]]) -> dict[Key, list[str]]:
    """Take out replacements with which the teacher's answers are not finite; what to say of them."""
    found = dict[Key, list[str]]()
    for block, own in zip(blocks, alone, strict=True):
        for name in [name for name, score in own.items() if not math.isfinite(score.harm)]:
            del own[name]
            found[block.name, name] = [f"{block.name}/{name}: with it the teacher's answers are NaN or infinite"]
    return found


def _form(block: Block) -> dict[str, object]:
    return {"name": block.name, "in_shape": list(block.in_shape), "out_shape": list(block.out_shape)}

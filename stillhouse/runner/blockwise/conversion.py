"""From a trained teacher to the network that the student starts from: one phase after the other.

``costs.json``, ``choice.json`` and ``stages.json`` in the run's folder ``blocks`` hold what was measured; what is there
is not measured again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from stillhouse.blocks.assemble import cut, joined
from stillhouse.blocks.calibrate import Activations, Apart, ApartObjective
from stillhouse.blocks.choose import Mix
from stillhouse.blocks.cost import Cost
from stillhouse.blocks.norms import recalibrate
from stillhouse.blocks.partition import Block
from stillhouse.blocks.score import Samples, judge_alone
from stillhouse.foundation.errors import DivergedError
from stillhouse.foundation.events import Evaluated, Event, Warned
from stillhouse.foundation.files import read_json, write_json
from stillhouse.models.network import Network
from stillhouse.models.weights import weights_bytes
from stillhouse.recipe.architectures import BlockwiseOptions, ModelSection, Normalisation
from stillhouse.recipe.blockwise import BlockwiseSection
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.blockwise.budget import Costs, check_reachable, measured
from stillhouse.runner.blockwise.choosing import Chooser, first_replaced
from stillhouse.runner.blockwise.judging import CHOOSE, Judging
from stillhouse.runner.blockwise.replacements import Offered, Trained, Workshop, offered
from stillhouse.runner.blockwise.samples import samples_of
from stillhouse.runner.energy import meter_of, metered
from stillhouse.runner.materials import Materials
from stillhouse.runner.phases import PhaseWeights, Trainer
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.signals import Signals

ASSEMBLED = "assembled"


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
        if not start.done() or start.damaged():
            start.write(weights_bytes(self._assembled()))
        recipe = self.materials.recipe
        model = self._student_model(read_json(self._path("choice"))["candidates"][0]["mix"])
        student = recipe.student.model_copy(update={"model": model})
        recipe = recipe.model_copy(update={"student": student})
        self.folder.resettle(recipe)
        networks = replace(self.materials.networks, recipe=recipe, start=start.path)
        return replace(self.materials, recipe=recipe, networks=networks)

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
        self._stage("assembled", network, samples)
        first = first_replaced(mix)
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
                self._stage("calibrated", network, samples)
        return network

    def _mix(self, chooser: Chooser, trained: Trained) -> Mix:
        """The best mix: the one that an earlier process chose, or chosen now."""
        path = self._path("choice")
        if not path.exists():
            with metered(meter_of(self.materials.recipe), CHOOSE, self.emit) as tell:
                judging = Judging(sum(map(len, trained.modules)) + chooser.steps(self._section), tell)
                alone = judge_alone(chooser.blocks, trained.modules, chooser.samples, judging.add)
                choice = chooser.choose(alone, self._section, judging.add)
                judging.end()
            told = [{name: asdict(score) for name, score in own.items()} for own in alone]
            stories = [[*key, list(lines)] for key, lines in trained.stories.items()]
            write_json(path, {**asdict(choice), "alone": told, "diverged": stories})
        return tuple(read_json(path)["candidates"][0]["mix"])

    def _costs(self, blocks: Sequence[Block], others: Offered) -> Costs:
        """Measured once in a run: latencies differ from time to time. What no budget is met with is not kept."""
        path = self._path("costs")
        if not path.exists():
            costs = measured(blocks, others)
            check_reachable(self._section.budget, costs, others)
            write_json(path, asdict(costs) | {"blocks": [_form(each) for each in blocks]})
        found = read_json(path)
        options = [{name: Cost(**cost) for name, cost in own.items()} for own in found["options"]]
        return Costs(options, Cost(**found["whole"]))

    def _calibration(self) -> TrainSection:
        """The replacements' training, of another length."""
        train, epochs = self._section.train, self._section.calibrate_epochs
        return train.model_copy(update={"epochs": epochs, "warmup_epochs": min(train.warmup_epochs, epochs)})

    def _stage(self, name: str, network: Network, samples: Samples) -> None:
        """Measure norms anew, then look how good the network is, and write that down."""
        recalibrate(network.body, samples.calibration)
        found = Trainer(self.materials, self.folder, self.emit, self.signals).validate(network)
        self.emit(Evaluated(name, 0, 0.0, "validation", found.accuracy, found.loss))
        path = self._path("stages")
        known = read_json(path) if path.exists() else {}
        write_json(path, {**known, name: {"accuracy": found.accuracy, "loss": found.loss}})

    def _student_model(self, mix: Sequence[str]) -> ModelSection:
        """What the student is, said so that it can be built anywhere; weights it has its own."""
        teacher = self.materials.recipe.teacher.model
        assert teacher is not None
        told = self.teacher.preprocess
        normalise = Normalisation(mean=tuple(told.mean.flatten().tolist()), std=tuple(told.std.flatten().tolist()))
        options = {key: value for key, value in teacher.options.items() if key not in ("pretrained", "checkpoint_path")}
        of = teacher.model_copy(update={"weights": None, "options": options, "normalise": normalise})
        made = BlockwiseOptions(of=of, blocks=self._section.blocks, mix=tuple(mix))
        return self.materials.recipe.student.model.model_copy(update={"options": made.model_dump(mode="json")})

    def _path(self, name: str) -> Path:
        return self.folder.path / "blocks" / f"{name}.json"


def _form(block: Block) -> dict[str, object]:
    return {"name": block.name, "in_shape": list(block.in_shape), "out_shape": list(block.out_shape)}

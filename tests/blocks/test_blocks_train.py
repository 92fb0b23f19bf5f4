"""Training replacements on one device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from stillhouse.blocks.library.offers import offers
from stillhouse.blocks.norms import recalibrate
from stillhouse.blocks.objective import BlockObjective, normalised_error
from stillhouse.blocks.partition import partition
from stillhouse.blocks.train import Line, Station
from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.knowledge.source import NoKnowledge
from stillhouse.recipe.train import TrainSection
from stillhouse.students.checkpoint import Checkpoints
from stillhouse.students.fit import FitContext, Loop

EPOCHS, STEPS, BATCH = 2, 5, 8
SETTINGS = TrainSection.model_validate(
    {"epochs": EPOCHS, "batch_size": BATCH, "warmup_epochs": 0, "optimizer": {"kind": "adamw", "learning_rate": 3e-3}}
)


class Course:
    """A stream's two numbers."""

    steps_per_epoch, batch_size = STEPS, BATCH


def teacher() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width, wide in ((3, 16), (16, 16), (16, 32)):
        layers += [nn.Conv2d(width, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)).eval()
    recalibrate(network, [torch.randn(64, 3, 8, 8)])
    return network


def batches() -> Iterator[Batch]:
    made = torch.Generator().manual_seed(1)
    for number in range(EPOCHS * STEPS):
        ids = (torch.arange(BATCH) + number * BATCH).numpy()
        yield Batch(ids, ids, torch.randn(BATCH, 3, 8, 8, generator=made), torch.zeros(BATCH, dtype=torch.int64))


def loop_of(module: nn.Module, name: str, folder: Path | None = None, cosine: float = 0.0) -> Loop:
    keeper = Checkpoints(folder / name, name, 0.0, 2, lambda event: None) if folder else None
    context = FitContext(name, 0, torch.device("cpu"), lambda event: None, checkpoints=keeper)
    course = cast(Stream, Course())
    return Loop(module.train(), NoKnowledge(), course, BlockObjective(cosine), SETTINGS, context)


def stations_of(wanted: dict[str, list[str]] | None = None, folder: Path | None = None) -> list[Station]:
    """Stations with the alternatives wanted, by block; by default two each."""
    found = []
    for block in partition(teacher(), torch.randn(2, 3, 8, 8), "layer")[:-1]:
        alternatives = {each.name: each.module for each in offers(block, 0)}
        kept = [name for name in ("separable-1", "low_rank-2") if name in alternatives]
        kept = kept if wanted is None else wanted.get(block.name, [])
        loops = {name: loop_of(alternatives[name], f"{block.name} {name}", folder) for name in kept}
        found.append(Station(block, loops))
    return found


def taught(stations: list[Station], upto: int = EPOCHS * STEPS) -> dict[tuple[str, str], dict[str, torch.Tensor]]:
    line = Line(stations)
    for step, batch in enumerate(batches()):
        if step < upto:
            line.take(step, batch, batch.inputs)
    return {
        (station.block.name, name): loop.state.network.state_dict()
        for station in stations
        for name, loop in station.loops.items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_replacements_come_near_the_teacher() -> None:
    """After a few steps each explains more of its block's output than before, on data it has not seen."""
    stations = stations_of()
    assert sum(len(each.loops) for each in stations) >= 5
    inputs = torch.randn(64, 3, 8, 8)

    def errors() -> list[float]:
        found, x = [], inputs
        for each in stations:
            with torch.no_grad():
                entry = each.block.lead(x)
                x = each.block.core(entry)
                for loop in each.loops.values():
                    module = copy.deepcopy(loop.state.network).train()  # norms by these inputs
                    found.append(normalised_error(module(entry), x).item())
        return found

    before = errors()
    taught(stations)
    assert all(after < least for after, least in zip(errors(), before, strict=True))


def test_together_is_as_alone() -> None:
    """A replacement gets the same weights, whoever else is trained in the same pass."""
    together = taught(stations_of())
    for block, name in together:
        alone = taught(stations_of({block: [name]}))
        assert same(alone[block, name], together[block, name])


@pytest.mark.parametrize("stopped", [1, 4, 7])
def test_what_was_stopped_goes_on(stopped: int, tmp_path: Path) -> None:
    """From checkpoints of whatever steps, all end in the weights of a training that nobody stopped."""
    whole = taught(stations_of())
    first = stations_of(folder=tmp_path)
    taught(first, stopped)
    for loop in list(first[0].loops.values())[:1]:  # one of them was further behind
        for path in sorted((tmp_path / loop.context.phase).glob("*.ckpt"))[1:]:
            path.unlink()
    again = taught(stations_of(folder=tmp_path))
    assert again.keys() == whole.keys() and all(same(again[key], whole[key]) for key in whole)


def test_no_more_of_the_teacher_than_is_needed() -> None:
    """Blocks behind the last one that learns are not run."""
    stations = stations_of({"0": ["separable-1"]})
    runs: list[str] = []
    for each in stations:
        each.block.core.register_forward_hook(lambda *_, name=each.block.name: runs.append(name))
    taught(stations, 1)
    assert runs == ["0"]


def test_the_error_has_no_scale() -> None:
    """0 for a copy, 1 for what the channels' means alone give, whatever the scale; a constant output is no trap."""
    wanted = torch.randn(16, 4, 3, 3) * torch.tensor([1.0, 5.0, 0.1, 2.0])[:, None, None] + 3
    means = wanted.mean(dim=(0, 2, 3), keepdim=True).expand_as(wanted)
    for scale in (1e-3, 1.0, 1e3):
        assert normalised_error(scale * wanted, scale * wanted) == 0
        assert normalised_error(scale * means, scale * wanted).item() == pytest.approx(1, rel=1e-4)
    assert torch.isfinite(normalised_error(torch.zeros(2, 3), torch.zeros(2, 3)))


def test_norms_are_measured_anew() -> None:
    """Statistics become the averages over the batches; momentum, modes of training and weights stay."""
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5))
    seen = [torch.randn(32, 3, 4, 4) + 2, torch.randn(32, 3, 4, 4) + 4]
    recalibrate(network, seen)
    norm: Any = network[0]
    torch.testing.assert_close(norm.running_mean, torch.full((3,), 3.0), atol=0.1, rtol=0)
    assert norm.momentum == 0.3 and not norm.training and int(norm.num_batches_tracked) == 2

"""Mixes of replacements as networks: built, folded, scored, calibrated."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from stillhouse.blocks.assemble import KEEP, build_any, converted, cut, folded, forgetful, joined, replacement
from stillhouse.blocks.calibrate import Activations, Apart, ApartObjective
from stillhouse.blocks.library.offers import offers
from stillhouse.blocks.norms import recalibrate
from stillhouse.blocks.score import Samples, judge_alone, judge_mix
from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import ModelError
from stillhouse.models.build import build
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network, evaluating
from stillhouse.recipe.architectures import BlockwiseOptions, ModelSection, Normalisation

INTERFACE = Interface((3, 16, 16), True, 5)
SEEN = Normalisation(mean=(0.5,), std=(0.25,))
RESNET = ModelSection(arch="resnet", options={"width": 16, "blocks": [1, 1]})


class FrozenBatchNorm2d(nn.Module):
    """As torchvision has it."""

    running_mean: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(width))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs - self.running_mean[:, None, None]


def resnet(seed: int = 0) -> Network:
    """With statistics as if it had been trained."""
    network = build(RESNET, INTERFACE, SEEN, seed, "teacher")
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def images(count: int = 8, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def answers(network: nn.Module, inputs: Tensor) -> Tensor:
    with evaluating(network):
        logits: Tensor = network(inputs)
    return logits


def mixed() -> tuple[str, ...]:
    """A replacement for every block that has any, of many kinds."""
    blocks = cut(resnet(), INTERFACE, "block")
    names = [[each.name for each in offers(block, 0)] for block in blocks]
    return tuple(own[at % len(own)] if own else KEEP for at, own in enumerate(names))


def test_a_mix_of_kept_blocks_is_the_network() -> None:
    """Cut and joined again with every block kept: the same answers."""
    network, inputs = resnet(), images()
    expected = answers(network, inputs)
    made = converted(network, INTERFACE, BlockwiseOptions(of=RESNET, blocks="block"), 0)
    assert torch.equal(answers(made, inputs), expected)


def test_a_student_is_rebuilt_from_its_options() -> None:
    """Same options, same names and shapes, whatever the weights of the teacher: a state dict fits."""
    options = BlockwiseOptions(of=RESNET, blocks="block", mix=mixed())
    trained = converted(resnet(3), INTERFACE, options, 7)
    section = ModelSection(arch="blockwise", options=options.model_dump(mode="json"))
    again = build_any(section, INTERFACE, SEEN, 0, "student")
    again.load_state_dict(trained.state_dict())
    assert torch.equal(answers(again, images()), answers(trained, images()))


@pytest.mark.parametrize("seed", range(3))
def test_folded_norms_change_no_answer(seed: int) -> None:
    """No batch norm is left, the answers are the same, and the folded student is rebuilt from its options, too."""
    options = BlockwiseOptions(of=RESNET, blocks="block", mix=mixed())
    network = converted(resnet(seed), INTERFACE, options, seed).eval()
    expected = answers(network, images())
    made = folded(copy.deepcopy(network), INTERFACE)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in made.modules())
    torch.testing.assert_close(answers(made, images()), expected, rtol=1e-4, atol=1e-5)
    options = options.model_copy(update={"folded": True})
    section = ModelSection(arch="blockwise", options=options.model_dump(mode="json"))
    again = build_any(section, INTERFACE, SEEN, 0, "student")
    again.load_state_dict(made.state_dict())
    assert torch.equal(answers(again, images()), answers(made, images()))


def test_a_mix_that_does_not_fit_is_refused() -> None:
    """Too many names, and a name that the library doesn't offer for the block: said, with the mend."""
    with pytest.raises(ModelError, match="4 blocks, and 1 are named"):
        converted(resnet(), INTERFACE, BlockwiseOptions(of=RESNET, blocks="block", mix=("keep",)), 0)
    block = cut(resnet(), INTERFACE, "block")[-1]
    with pytest.raises(ModelError, match="no replacement 'separable'"):
        replacement(block, "separable", 0)
    with pytest.raises(ModelError, match="once its run has chosen"):
        build_any(ModelSection(arch="blockwise"), INTERFACE, SEEN, 0, "student")


def test_forgetting_leaves_nothing_of_what_was_learnt() -> None:
    """Networks of different weights are the same after it; seeds differ."""
    one, other = (forgetful(resnet(seed), 5) for seed in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    third = forgetful(resnet(1), 6)
    assert not torch.equal(next(third.body.parameters()), next(one.body.parameters()))


def samples(network: Network) -> Samples:
    inputs = network.preprocess(images(64))
    labels = torch.arange(64) % 5

    return Samples(list(inputs.split(16)), lambda: iter([(inputs[:32], labels[:32]), (inputs[32:], labels[32:])]))


def test_harm_is_none_where_nothing_is_changed() -> None:
    """A copy of a block in its place does next to no harm, fresh weights do; the teacher is left as it was."""
    network = resnet()
    seen = samples(network)
    recalibrate(network.body, seen.calibration)
    blocks, before = cut(network, INTERFACE, "block"), copy.deepcopy(network.state_dict())
    fresh = forgetful(Network(network.preprocess, copy.deepcopy(blocks[1].core)), 9).body
    others: list[dict[str, nn.Module]] = [{}, {"same": copy.deepcopy(blocks[1].core), "fresh": fresh}, {}, {}]
    alone = judge_alone(blocks, others, seen)[1]
    assert alone["same"].harm < 1e-6 < 1e-3 < alone["fresh"].harm
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_alone_and_in_a_mix_a_replacement_scores_the_same() -> None:
    """What shares the teacher's passes gives the harm and accuracy of the whole network with that block swapped."""
    network = resnet()
    blocks, seen = cut(network, INTERFACE, "block"), samples(network)
    others = [{each.name: each.module.eval() for each in offers(block, 0, ("separable",))} for block in blocks]
    alone = judge_alone(blocks, others, seen)
    for at, own in enumerate(others):
        for name, module in own.items():
            cores = [module if at == number else block.core for number, block in enumerate(blocks)]
            whole = judge_mix(blocks, cores, seen)
            assert whole.accuracy == alone[at][name].accuracy
            assert whole.harm == pytest.approx(alone[at][name].harm, rel=1e-4)
    assert judge_mix(blocks, [block.core for block in blocks], seen).harm == pytest.approx(0, abs=1e-7)


def test_frozen_norms_are_left_alone() -> None:
    """A norm with fixed statistics has none to measure anew."""
    frozen = FrozenBatchNorm2d(3)
    network = nn.Sequential(frozen, nn.BatchNorm2d(3))
    recalibrate(network, [torch.randn(8, 3, 4, 4) + 5])
    assert torch.equal(frozen.running_mean, torch.zeros(3)) and network[1].running_mean.mean() > 4  # type: ignore[operator,union-attr]


def apart(network: Network, first: int) -> tuple[Network, list[str]]:
    blocks = cut(network, INTERFACE, "block")
    body = joined(blocks, [block.core for block in blocks])
    names = [name for name, _ in body.named_children()]
    return Network(network.preprocess, Apart(body, first)), names


def test_no_gradient_crosses_between_parts() -> None:
    """Each part's loss moves that part only; parts before the first that learns are left as they are, norms too."""
    network = resnet()
    made, names = apart(copy.deepcopy(network), 1)
    told = dict(zip(names, cut(network, INTERFACE, "block"), strict=True))
    objective = ApartObjective(names[1:])
    source = Activations(network.preprocess, told, objective.ask, torch.device("cpu"))
    batch = Batch(torch.arange(8).numpy(), torch.zeros(8, dtype=torch.int64).numpy(), images(), torch.zeros(8).long())
    ((_, knowledge),) = source.teach([batch])
    assert source.waits()["teacher"] > 0 and source.waits()["teacher"] == 0
    frozen = copy.deepcopy(made.body[0].state_dict())  # type: ignore[index,union-attr]
    made.train()
    seen = {}
    for name in names:
        made.body.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    made(batch.inputs)
    _, parts = objective(torch.empty(0), seen, knowledge, batch.targets)
    assert list(parts) == names[1:]
    last = names[-1]
    ApartObjective([last])(torch.empty(0), seen, knowledge, batch.targets)[0].backward()
    touched = {name.split(".")[0] for name, each in made.body.named_parameters() if each.grad is not None}
    assert touched == {last}
    after = made.body[0].state_dict()  # type: ignore[index,union-attr]
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())


def test_a_teacher_in_parts_is_already_calibrated() -> None:
    """In evaluation mode the copy of a teacher is no distance from it."""
    network = resnet()
    made, names = apart(copy.deepcopy(network), 0)
    assert torch.equal(answers(made, images()), answers(network, images()))
    assert list(made.state_dict()) == list(Network(network.preprocess, joined_copy(network)).state_dict())
    assert names == ["stem", "stage1_0", "stage2_0", "head"]


def joined_copy(network: Network) -> nn.Sequential:
    blocks = cut(copy.deepcopy(network), INTERFACE, "block")
    return joined(blocks, [block.core for block in blocks])

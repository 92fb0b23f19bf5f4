"""Several teachers as one network: the sums by hand, and what a network's keepers see of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from stillhouse.data.batch import Batch
from stillhouse.knowledge.ask import Ask
from stillhouse.models.build import build, check_answer, wrap
from stillhouse.models.cost import measure_cost
from stillhouse.models.ensemble import Ensemble, Share, parts
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.taps import shapes
from stillhouse.models.weights import load_into, weights_bytes, weights_digest
from stillhouse.recipe.architectures import ModelSection, Normalisation
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.teachers.engine import Teacher

GREY = Normalisation(mean=(0.5,), std=(0.25,))
AS_IT_IS = Normalisation(mean=(0.0,), std=(1.0,))
IMAGE = Interface((1, 8, 8), True, 5)
ALL = (0, 1, 2, 3, 4)
CPU = torch.device("cpu")


class Says(nn.Module):
    """Answers the same logits to everything, in the type of its input."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.logits.to(values.dtype).expand(len(values), -1)


def says(*told: tuple[list[float], float, tuple[int, ...], bool], classes: int = 5) -> torch.Tensor:
    """The ensemble's logits [K], in double precision, of members (logits, weight, classes, own outputs)."""
    interface = Interface((3,), False, classes)
    members = [wrap(Says(logits), Interface((3,), False, len(logits)), AS_IT_IS) for logits, *_ in told]
    ensemble = Ensemble(members, [Share(weight, own, owned) for _, weight, own, owned in told], classes)
    network = wrap(ensemble, interface, AS_IT_IS)
    check_answer(network, interface, "teacher")
    answer = network(torch.zeros(2, 3)).detach()
    assert answer.dtype == torch.float32 and torch.equal(answer[0], answer[1])
    return answer[0].double()


def distribution(logits: list[float] | torch.Tensor, temperature: float = 1.0) -> list[float]:
    """Softmax by hand."""
    powers = [math.exp(float(each) / temperature) for each in logits]
    return [each / sum(powers) for each in powers]


A, B = [2.0, -1.0, 0.5, 0.0, 3.0], [0.0, 1.5, -2.0, 1.0, 0.25]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("one", "other"), [(1.0, 1.0), (3.0, 1.0), (0.2, 0.7)])
def test_the_mean_is_geometric_at_every_temperature(one: float, other: float, temperature: float) -> None:
    """What a student sees is the weighted geometric mean of the members' distributions, softened alike."""
    found = distribution(says((A, one, ALL, False), (B, other, ALL, False)), temperature)
    p, q = distribution(A, temperature), distribution(B, temperature)
    means = [(x**one * y**other) ** (1 / (one + other)) for x, y in zip(p, q, strict=True)]
    assert found == pytest.approx([each / sum(means) for each in means], rel=1e-5)


def test_a_constant_in_a_members_logits_changes_nothing() -> None:
    """Logits that differ by a constant say the same, whoever answers for what."""
    for own in (ALL, (0, 1, 2)):
        plain = says((A, 1.0, own, False), (B, 2.0, ALL, False))
        moved = says(([each + 7 for each in A], 1.0, own, False), (B, 2.0, ALL, False))
        torch.testing.assert_close(moved, plain)
    halves = (A[:2], 1.0, (0, 1), True), (B[:3], 1.0, (2, 3, 4), True)
    moved = says(([each + 7 for each in A[:2]], *halves[0][1:]), halves[1])
    torch.testing.assert_close(moved, says(*halves))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_class_is_answered_by_those_who_are_responsible(temperature: float) -> None:
    """Of members with all outputs, those that answer for a class give the weighted mean of their log-probabilities."""
    found = distribution(says((A, 1.0, (4, 0), False), (B, 3.0, (0, 1, 2, 3), False)), temperature)
    p, q = distribution(A), distribution(B)
    scores = [math.log(p[0]) / 4 + 3 * math.log(q[0]) / 4, *map(math.log, q[1:4]), math.log(p[4])]
    assert found == pytest.approx(distribution(torch.tensor(scores), temperature), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_specialist_shares_out_what_the_others_give_its_classes(temperature: float) -> None:
    """Where only a specialist answers for its classes, they keep the probability that the others give them."""
    specialist = [0.0, 2.0]
    told = ((A, 1.0, (0, 2, 4), False), (B, 3.0, (0, 2, 4), False), (specialist, 5.0, (3, 1), True))
    found = says(*told)
    general = [(x * y**3) ** 0.25 for x, y in zip(distribution(A), distribution(B), strict=True)]
    general = [each / sum(general) for each in general]
    p, q, s = distribution(A), distribution(B), distribution(specialist)
    mass = general[1] + general[3]
    scores = [math.log(p[c]) / 4 + 3 * math.log(q[c]) / 4 for c in range(5)]
    scores[3], scores[1] = math.log(s[0] * mass), math.log(s[1] * mass)
    wanted = distribution(torch.tensor(scores), temperature)
    assert distribution(found, temperature) == pytest.approx(wanted, rel=1e-5)


def test_a_specialist_beside_others_has_a_say_by_its_weight() -> None:
    """For a class that both answer for, a specialist and a general member are weighed like any two."""
    found = distribution(says((A, 1.0, ALL, False), ([0.0, 2.0], 3.0, (3, 1), True)))
    p, s = distribution(A), distribution([0.0, 2.0])
    mass = p[1] + p[3]
    scores = [math.log(each) for each in p]
    scores[3] = math.log(p[3]) / 4 + 3 * math.log(s[0] * mass) / 4
    scores[1] = math.log(p[1]) / 4 + 3 * math.log(s[1] * mass) / 4
    assert found == pytest.approx(distribution(torch.tensor(scores)), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_among_specialists_the_surer_one_has_more_weight(temperature: float) -> None:
    """Of specialists alone each gives its logits less their mean; where two share a class, their weighted mean."""
    first, second = [4.0, -1.0, 0.0], [0.1, 0.0, -0.1]
    found = says((first, 1.0, (0, 1, 2), True), (second, 3.0, (3, 2, 4), True))
    scores = [3.0, -2.0, (-1.0 + 3 * 0.0) / 4, 0.1, -0.1]
    wanted = distribution(torch.tensor(scores), temperature)
    assert distribution(found, temperature) == pytest.approx(wanted, rel=1e-5)
    assert sum(distribution(found)[:3]) > 0.8


def resnet(seed: int, interface: Interface = IMAGE, **section: object) -> Network:
    options = {"width": 4, "blocks": [1, 1]}
    return build(ModelSection(arch="resnet", options=options, **section), interface, GREY, seed, "teacher")  # type: ignore[arg-type]


def pair(weight: float = 1.0, classes: tuple[int, ...] = ALL) -> Network:
    """Two networks of other size, channels and normalisation."""
    own = Normalisation(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    members = [resnet(1), resnet(2, size_px=(12, 12), channels=3, normalise=own)]
    shares = [Share(weight, ALL, False), Share(1.0, classes, False)]
    return wrap(Ensemble(members, shares, 5), IMAGE, AS_IT_IS).eval()


def images(rows: int) -> torch.Tensor:
    return torch.randint(0, 256, (rows, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_members_see_what_they_would_see_alone() -> None:
    """Each member's own size, channels and normalisation apply, to the last bit."""
    network, raw = pair(), images(6)
    first, second = parts(network)
    wanted = first(raw).log_softmax(1) * 0.5 + second(raw).log_softmax(1) * 0.5
    assert torch.equal(network(raw), wanted)
    assert parts(first) == [first]


def as_batch(raw: torch.Tensor) -> Batch:
    return Batch(np.arange(len(raw)), np.zeros(len(raw), np.int64), raw, torch.zeros(len(raw), dtype=torch.int64))


def answered(network: Network, precision: str) -> torch.Tensor:
    """An engine's logits to a few images."""
    engine = TeacherEngineSection.model_validate({"precision": precision, "batch_size": 4})
    teacher = Teacher(network, Ask(logits=True), CPU, engine)
    found = teacher.answer(as_batch(images(6))).logits
    teacher.close()
    assert found is not None
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_engine_answers_like_its_members_brought_together(precision: str) -> None:
    """In bf16, too, members answer as each would alone, and are brought together in fp32, to the last bit."""
    network = pair()
    wanted = [0.5 * answered(member, precision).log_softmax(1) for member in parts(network)]
    found = answered(network, precision)
    assert torch.equal(found, wanted[0] + wanted[1])
    assert torch.equal(found, network(images(6))) == (precision == "fp32")
    torch.testing.assert_close(found, network(images(6)), atol=0.1, rtol=0)


def test_the_digest_tells_who_has_what_to_say() -> None:
    """Other weights, other responsibilities and other members have other digests; the same ones have the same."""
    found = [weights_digest(each) for each in (pair(), pair(2.0), pair(classes=(0, 1)))]
    assert len(set(found)) == 3 and weights_digest(pair()) == found[0]


def test_weights_of_all_members_are_one_file() -> None:
    """A file of the whole loads into an ensemble of the same form."""
    source, target = pair(2.0), pair()
    with torch.no_grad():
        next(source.parameters()).add_(1)
    load_into(target, safetensors.torch.load(weights_bytes(source)), "the file")
    assert weights_digest(target) == weights_digest(source)
    assert torch.equal(target(images(3)), source(images(3)))


def test_costs_are_those_of_all_members() -> None:
    """Parameters and multiply-adds are the sums."""
    network = pair()
    whole, each = measure_cost(network, IMAGE), [measure_cost(part, IMAGE) for part in parts(network)]
    assert whole.params == sum(one.params for one in each)
    assert whole.macs == sum(one.macs for one in each)


def test_taps_reach_into_members() -> None:
    """A module of a member is tapped by its name in the ensemble."""
    assert shapes(pair(), ["members.1.body.stage2"], IMAGE) == {"members.1.body.stage2": (8, 6, 6)}

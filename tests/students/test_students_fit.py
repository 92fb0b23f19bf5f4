"""The training loop: what it computes, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import DivergedError, StillhouseError
from stillhouse.foundation.events import Progress
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.knowledge.source import NoKnowledge
from stillhouse.models.network import Network
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.recipe.train import TrainSection
from stillhouse.students.fit import FitContext, fit
from stillhouse.students.objective import LABELS_ONLY, Objective
from stillhouse.students.optimizer import learning_rate, make_optimizer

DISTIL = ObjectiveSection.model_validate(
    {"cross_entropy": 0.5, "kd": {}, "features": [{"student": "features", "teacher": "features", "weight": 0.1}]}
)
GOLDEN = [
    0.66979891, 0.56306469, 0.60355496, 0.67979169, 0.53318679, 0.50783342,
    0.53978610, 0.59721112, 0.51376969, 0.51790577, 0.49772456, 0.50523102,
]  # fmt: skip


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    theirs = other.state_dict()
    return max((tensor.float() - theirs[name].float()).abs().max().item() for name, tensor in one.state_dict().items())


def test_golden_losses(lab: Any) -> None:
    """Twelve steps of distillation with features give the losses they always gave, and the same bits a second time."""
    settings = lab.settings(epochs=3)
    first = lab.fit(lab.network(), settings, DISTIL)
    found = lab.losses()
    assert found == pytest.approx(GOLDEN, rel=1e-5)
    lab.events.clear()
    second = lab.fit(lab.network(), settings, DISTIL)
    assert lab.losses() == found and same(first, second)


def test_first_step_by_hand(lab: Any) -> None:
    """A step of SGD moves each weight by minus rate times (gradient + decay times weight), biases without decay."""
    settings = lab.settings(
        epochs=1, batch_size=24, warmup_epochs=0,
        optimizer={"kind": "sgd", "learning_rate": 0.2, "momentum": 0.0, "weight_decay": 0.1},
    )  # fmt: skip
    network = lab.network(norm=False)
    (batch,) = lab.stream(24).batches(0, 1)
    twin = lab.network(norm=False)
    nn.functional.cross_entropy(twin(batch.inputs), batch.targets).backward()
    wanted = {
        name: each.detach() - 0.2 * (each.grad + (0.1 * each.detach() if each.ndim > 1 else 0.0))  # type: ignore[operator]
        for name, each in twin.named_parameters()
    }
    lab.fit(network, settings)
    for name, each in network.named_parameters():
        torch.testing.assert_close(each.detach(), wanted[name], rtol=1e-5, atol=1e-7)


def test_learning_rate_schedule() -> None:
    """The rate climbs linearly over the warm-up, then falls along half a cosine and never reaches zero."""
    settings = TrainSection.model_validate(
        {"epochs": 5, "warmup_epochs": 1, "optimizer": {"kind": "sgd", "learning_rate": 0.4}}
    )
    rates = [learning_rate(settings, step, 4) for step in range(20)]
    assert rates[:5] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])
    assert rates[12] == pytest.approx(0.2)
    assert rates[4:] == pytest.approx([0.2 * (1 + math.cos(math.pi * step / 16)) for step in range(16)])
    assert rates[-1] > 0


@pytest.mark.parametrize("warmup", [0.0, 0.3, 2.0])
def test_learning_rate_is_positive_and_bounded(warmup: float) -> None:
    """With no, a broken or an endless warm-up every step has a rate above zero and at most the one asked for."""
    settings = TrainSection.model_validate({"epochs": 2, "warmup_epochs": warmup})
    rates = [learning_rate(settings, step, 7) for step in range(14)]
    assert all(0 < rate <= settings.optimizer.learning_rate for rate in rates)


def test_told_learning_rate_is_the_one_used(lab: Any) -> None:
    """Each progress event tells the rate of its own step."""
    settings = lab.settings()
    lab.fit(lab.network(), settings)
    told = [event.learning_rate for event in lab.events if isinstance(event, Progress)]
    assert told == [learning_rate(settings, step, 4) for step in range(12)]


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_accumulation_equals_the_full_batch(lab: Any, accumulate: int) -> None:
    """Without batch norm, micro-batches add up to the full batch's gradient, loss by loss and weight by weight."""
    whole = lab.fit(lab.network(norm=False), lab.settings(), DISTIL)
    losses = lab.losses()
    lab.events.clear()
    parts = lab.fit(lab.network(norm=False), lab.settings(accumulate=accumulate), DISTIL)
    assert lab.losses() == pytest.approx(losses, rel=1e-4)
    assert largest_difference(whole, parts) < 1e-4


def test_ema_is_the_formula(lab: Any) -> None:
    """The average starts at the first step's weights, then is d average + (1 - d) weights, batch norm included."""
    settings = lab.settings(ema_decay=0.8)
    network = lab.network()
    trail: list[dict[str, torch.Tensor]] = []

    def listen(event: object) -> None:
        if isinstance(event, Progress):
            trail.append(weights(network))

    result = lab.fit(network, settings, listener=listen)
    average = {name: tensor.double() for name, tensor in trail[0].items()}
    for each in trail[1:]:
        average = {name: 0.8 * average[name] + 0.2 * tensor for name, tensor in each.items()}
    assert len(trail) == 12 and result is not network
    for name, tensor in result.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), average[name], rtol=1e-5, atol=1e-6)


def test_what_ends_early_is_an_average_and_what_ends_is_not(lab: Any, tmp_path: Path) -> None:
    """Of the last fifth of the steps, more or less; gone on with, it ends as if it had never been looked at."""
    network, trail = lab.network(), list[dict[str, torch.Tensor]]()

    def listen(event: object) -> None:
        if isinstance(event, Progress):
            trail.append(weights(network))

    checkpoints, settings = lab.checkpoints(), lab.settings()
    early = lab.fit(network, settings, checkpoints=checkpoints, listener=listen, until_step=8, averages=True)
    average = {name: tensor.double() for name, tensor in trail[0].items()}
    for count, each in enumerate(trail[1:], 2):
        share = 5 / (count + 4)
        average = {name: (1 - share) * average[name] + share * tensor for name, tensor in each.items()}
    assert len(trail) == 8 and early is not network
    for name, tensor in early.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), average[name], rtol=1e-5, atol=1e-6)
    gone_on = lab.fit(lab.network(seed=5), settings, checkpoints=checkpoints, averages=True)
    whole = lab.fit(lab.network(), settings)
    assert largest_difference(gone_on, whole) == 0


def test_clipping_bounds_the_step(lab: Any) -> None:
    """With clip_norm c, one step of plain SGD at rate r moves the weights by r c, adapters included in the norm."""
    optimizer = {"kind": "sgd", "learning_rate": 0.5, "momentum": 0.0, "weight_decay": 0.0}
    settings = lab.settings(epochs=1, batch_size=24, warmup_epochs=0, optimizer=optimizer, clip_norm=1e-3)
    network = lab.network(norm=False)
    before = torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    lab.fit(network, settings)
    moved = torch.nn.utils.parameters_to_vector(network.parameters()).detach() - before
    assert moved.norm().item() == pytest.approx(0.5 * 1e-3, rel=1e-3)


def test_adapters_are_trained_and_stay_out_of_the_student(lab: Any) -> None:
    """Adapters learn along with the student, and the student's weights have none of their names."""
    settings, network = lab.settings(), lab.network()
    names = set(network.state_dict())
    checkpoints = lab.checkpoints()
    result = lab.fit(network, settings, DISTIL, checkpoints)
    assert set(result.state_dict()) == names
    with torch.random.fork_rng():
        torch.manual_seed(4)
        fresh = Objective(DISTIL, 0.0, {"features": (3, 4, 4)}, {"features": (5, 4, 4)})
    (name,) = fresh.state_dict()
    assert not torch.equal(checkpoints.load()["objective"][name], fresh.state_dict()[name])


def test_weight_decay_spares_what_has_one_dimension(lab: Any) -> None:
    """Biases and norm parameters are in the group without weight decay, all others in the one with it."""
    network = lab.network()
    for kind in ("sgd", "adamw"):
        optimizer = make_optimizer(lab.settings(optimizer={"kind": kind, "weight_decay": 0.3}), [network])
        decayed, spared = optimizer.param_groups
        assert decayed["weight_decay"] == 0.3 and all(each.ndim > 1 for each in decayed["params"])
        assert spared["weight_decay"] == 0.0 and all(each.ndim == 1 for each in spared["params"])
        assert len(decayed["params"]) + len(spared["params"]) == len(list(network.parameters()))


@pytest.mark.parametrize(
    "values",
    [
        {"engine": {"precision": "bf16"}},
        {"engine": {"channels_last": True}},
        {"engine": {"precision": "bf16", "channels_last": True}, "accumulate": 2, "clip_norm": 1.0, "ema_decay": 0.5},
        {"optimizer": {"kind": "adamw", "learning_rate": 0.01}},
        {"label_smoothing": 0.1},
    ],
)
def test_every_way_to_train_learns(lab: Any, values: dict[str, Any]) -> None:
    """bf16, channels last, AdamW and label smoothing, with features distilled, bring the loss down."""
    lab.fit(lab.network(), lab.settings(epochs=8, **values), DISTIL)
    losses = lab.losses()
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_channels_last_and_bf16_stay_near_fp32(lab: Any) -> None:
    """Channels last changes only rounding, bf16 little more."""
    plain = lab.fit(lab.network(), lab.settings())
    assert largest_difference(plain, lab.fit(lab.network(), lab.settings(engine={"channels_last": True}))) < 1e-4
    assert largest_difference(plain, lab.fit(lab.network(), lab.settings(engine={"precision": "bf16"}))) < 0.1


@pytest.mark.slow
def test_compiled_equals_eager(lab: Any) -> None:
    """A compiled training, features tapped, ends where the eager one does, to rounding."""
    eager = lab.fit(lab.network(), lab.settings(), DISTIL)
    compiled = lab.fit(lab.network(), lab.settings(engine={"compile": True}), DISTIL)
    assert largest_difference(eager, compiled) < 1e-3


def test_misaligned_knowledge_stops_the_training(lab: Any) -> None:
    """Knowledge about other views than the batch's ends the training before it is used, wherever it came from."""

    class Wrong:
        ask = Ask()
        waits = counts = staticmethod(dict)

        def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
            for batch in batches:
                yield batch, Knowledge(batch.sample_ids[::-1], batch.views, torch.zeros(len(batch), 3))

    network, settings = lab.network(), lab.settings()
    before = weights(network)
    context = FitContext("student", 0, torch.device("cpu"), lab.events.append)
    source = Wrong()
    with pytest.raises(StillhouseError, match="out of step"):
        fit(network, source, lab.stream(), Objective(ObjectiveSection()), settings, context)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_taps_are_taken_off_after_training(lab: Any) -> None:
    """No hook stays on a network that was trained."""
    network = lab.network()
    lab.fit(network, lab.settings(epochs=1), DISTIL)
    assert not any(module._forward_hooks for module in network.modules())


def test_set_up_is_not_charged_to_the_training(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds spent before the first batch (loading a checkpoint, say) are in no progress event."""
    source, seconds = NoKnowledge(), iter(range(0, 10_000, 100))
    monkeypatch.setattr("stillhouse.foundation.clock.time.perf_counter", lambda: float(next(seconds)))
    context = FitContext("student", 0, torch.device("cpu"), lab.events.append, progress_every_s=0.0)
    fit(lab.network(), source, lab.stream(), Objective(LABELS_ONLY), lab.settings(epochs=1), context)
    first = next(event for event in lab.events if isinstance(event, Progress))
    assert "set-up" not in first.seconds and first.seconds["data"] == 100


@pytest.mark.parametrize("checkpoints", [True, False])
def test_nan_loss_names_the_samples(lab: Any, checkpoints: bool) -> None:
    """A NaN loss stops the run, names step and samples, and no checkpoint with NaN is ever written."""
    stream = lab.stream(poison=7)
    step = next(step for step, batch in enumerate(stream.batches(0, 12)) if 7 in batch.sample_ids)
    kept = lab.checkpoints() if checkpoints else None
    network = lab.network()
    with pytest.raises(DivergedError, match=rf"is nan at step {step}, samples .*\b7\b") as caught:
        lab.fit(network, lab.settings(), checkpoints=kept, stream=stream)
    assert all(
        torch.isfinite(tensor.float()).all() for name, tensor in network.state_dict().items() if "run" not in name
    )
    if kept is not None and step > 0:
        state = kept.load()
        assert state is not None and state["step"] == step and str(kept.newest()) in str(caught.value)
        assert all(torch.isfinite(tensor.float()).all() for tensor in state["network"].values())
    if kept is None:
        assert "No checkpoint was written" in str(caught.value)


def test_exploding_loss_is_told(lab: Any) -> None:
    """A loss beyond loss_ratio_max times the first stops the run, with the values in the message."""
    wild = lab.settings(
        epochs=10, warmup_epochs=0, loss_ratio_max=20,
        optimizer={"kind": "sgd", "learning_rate": 500.0, "momentum": 0.9},
    )  # fmt: skip
    checkpoints = lab.checkpoints()
    with pytest.raises(DivergedError, match=r"exploded to .* \(first: .*a lower learning rate"):
        lab.fit(lab.network(norm=False), wild, checkpoints=checkpoints)
    state = checkpoints.load()
    assert state is not None and all(torch.isfinite(tensor).all() for tensor in state["network"].values())


class Cliff(nn.Module):
    """A model whose loss is finite and whose gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = inputs.flatten(1).sum(1, keepdim=True) * 0 + self.weight.abs().sqrt()
        return logits


@pytest.mark.parametrize("checkpointed", [True, False])
def test_weights_that_are_not_finite_are_never_kept(lab: Any, checkpointed: bool) -> None:
    """A finite loss with an infinite gradient ruins the weights: told by name, never saved, never returned."""
    network = Network(lab.network().preprocess, Cliff())
    settings = lab.settings(epochs=1, batch_size=24)
    kept = lab.checkpoints() if checkpointed else None
    with pytest.raises(DivergedError, match=r"the weight 'body\.weight' is no longer finite"):
        lab.fit(network, settings, checkpoints=kept)
    assert not list(lab.folder.iterdir())


def test_global_generators_only_matter_inside(lab: Any) -> None:
    """What random numbers the process drew before has no influence on a training with dropout."""
    settings = lab.settings()
    torch.manual_seed(1)
    first = lab.fit(lab.network(dropout=0.5), settings)
    torch.manual_seed(2)
    torch.rand(100)
    assert same(first, lab.fit(lab.network(dropout=0.5), settings))


def test_events_of_a_training(lab: Any, make_lab: Callable[[Path], Any]) -> None:
    """A training tells its start, its evaluations at each epoch's end, and samples that add up to all of them."""
    lab.fit(lab.network(), lab.settings(accumulate=2), DISTIL)
    start = lab.events[0]
    assert (start.phase, start.step, start.steps, start.batch_size) == ("student", 0, 12, 6)
    told = [event for event in lab.events if isinstance(event, Progress)]
    assert sum(event.samples for event in told) == 72
    for event in told:
        parts = event.losses
        wanted = 0.5 * parts["cross_entropy"] + 0.9 * parts["kd"] + 0.1 * parts["features.features->features"]
        assert parts["total"] == pytest.approx(wanted, rel=1e-5)

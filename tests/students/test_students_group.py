"""Several students train one network: the weights are those of one alone, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.foundation.errors import DivergedError, Interrupted, StillhouseError
from stillhouse.foundation.events import Progress
from stillhouse.knowledge.source import NoKnowledge
from stillhouse.models.weights import weights_digest
from stillhouse.recipe.train import TrainSection
from stillhouse.students.fit import FitContext, fit
from stillhouse.students.group import Alone, Group, share_of
from stillhouse.students.micro import MicroBatches
from stillhouse.students.objective import LABELS_ONLY, Objective

from .together import Seated, together

CPU = torch.device("cpu")


class Share:
    """A stream of one student's share of each batch."""

    def __init__(self, stream: Stream, group: Group, count: int) -> None:
        self.steps_per_epoch, self.batch_size = stream.steps_per_epoch, stream.batch_size
        self._stream, self._share, self._count = stream, group.share(count), count

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        size = self.batch_size // self._count
        for batch in self._stream.batches(first, last):
            yield batch.part(self._share.start * size, self._share.stop * size)


def trained(lab: Any, train: TrainSection, group: Group | None = None, **changes: Any) -> tuple[str, list[float]]:
    """The digest of a network after training from labels, and its losses step by step."""
    told: list[float] = []

    def emit(event: object) -> None:
        if isinstance(event, Progress):
            told.append(event.losses["total"])

    context = FitContext("student", 11, CPU, emit, progress_every_s=0.0, **({"group": group} if group else {}))
    stream = lab.stream(train.batch_size, changes.pop("poison", None))
    interrupted = changes.pop("interrupted", None)
    if interrupted is not None:
        context = FitContext(
            "student", 11, CPU, emit, progress_every_s=0.0, group=context.group, interrupted=interrupted
        )
    if group is not None:
        stream = cast(Stream, Share(stream, group, train.accumulate))
    network = lab.network(**changes)
    fit(network, NoKnowledge(), stream, Objective(LABELS_ONLY), train, context)
    return weights_digest(network), told


@given(size=st.integers(1, 9), more=st.integers(0, 20))
def test_shares_are_the_whole_in_order(size: int, more: int) -> None:
    """Every micro-batch is in exactly one share, in order, and no share has two more than another."""
    count = size + more
    shares = [share_of(rank, size, count) for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"clip_norm": 0.3, "ema_decay": 0.9},
        {"optimizer": {"kind": "adamw"}, "label_smoothing": 0.1},
        {"engine": {"channels_last": True, "precision": "bf16"}},
    ],
    ids=["plain", "clipped", "adamw", "channels-last"],
)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_number_of_students_ends_in_the_same_bits(lab: Any, size: int, change: dict[str, Any]) -> None:
    """Two, three and four students, of uneven shares, with batch norm and dropout, are one to the last bit."""
    train = lab.settings(batch_size=10, accumulate=5, epochs=2, **change)
    alone, losses = trained(lab, train, dropout=0.3)
    found = together(size, lambda group: trained(lab, train, group, dropout=0.3))
    assert [digest for digest, _ in found] == [alone] * size
    assert found[0][1] == losses


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_gradients_that_are_missing_are_no_zeros(data: st.DataObject) -> None:
    """A layer that some or all micro-batches leave out gets the gradient that one process would give it, or none."""
    count = data.draw(st.integers(1, 6))
    size = data.draw(st.integers(1, count))
    used = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))

    def gradients(group: Group) -> list[torch.Tensor | None]:
        torch.manual_seed(0)
        often, seldom = nn.Linear(3, 2), nn.Linear(3, 2)
        parameters = [*often.parameters(), *seldom.parameters()]
        found = MicroBatches(group, parameters, (), ("total",), count)
        for number in group.share(count):
            inputs = torch.linspace(-1, 1, 12).view(4, 3) * (number + 1)
            loss = often(inputs).square().sum() + (seldom(inputs).square().sum() if used[number] else 0.0)
            loss.backward()
            found.put({"total": loss.detach()})
        found.close()
        return [each.grad for each in parameters]

    alone = gradients(Alone())
    for found in together(size, gradients):
        for one, other in zip(alone, found, strict=True):
            assert (one is None) == (other is None)
            assert one is None or other is None or (one.view(torch.int32) == other.view(torch.int32)).all()


def test_micro_batches_don_t_see_each_other_s_statistics(lab: Any) -> None:
    """Batch norm's statistics after a step are the mean of what each micro-batch makes of those before it."""
    train = lab.settings(batch_size=6, accumulate=3, epochs=1, warmup_epochs=0)
    network, stream = lab.network(), lab.stream(6)
    (batch,) = stream.batches(0, 1)
    expected = []
    for start in (0, 2, 4):
        one = lab.network().train()
        one(batch.part(start, start + 2).inputs)
        expected.append(one.body.features[1].running_mean)

    class One:
        steps_per_epoch, batch_size = 1, 6

        def batches(self, first: int, last: int) -> Iterator[Batch]:
            yield batch

    fit(network, NoKnowledge(), cast(Stream, One()), Objective(LABELS_ONLY), train, FitContext("s", 1, CPU, print))
    norm = network.body.features[1]
    torch.testing.assert_close(norm.running_mean, torch.stack(expected).mean(0))
    assert norm.num_batches_tracked == 1
    assert torch.equal(network.preprocess.std, lab.network().preprocess.std)


def test_a_signal_to_one_stops_all_at_the_same_step(lab: Any) -> None:
    """One student is told to stop; all end after the same step."""
    train = lab.settings(batch_size=6, accumulate=3, epochs=2)
    steps: list[int] = []

    def stopped(group: Seated) -> None:
        seen = 0

        def interrupted() -> int | None:
            nonlocal seen
            seen += 1
            steps.append(seen)
            return 15 if group.share(3).start == 1 and seen == 3 else None

        with pytest.raises(Interrupted, match="stopped at step 3 of 8"):
            trained(lab, train, group, interrupted=interrupted)

    together(3, stopped)
    assert max(steps) == 3


def test_all_diverge_alike_and_name_the_whole_batch(lab: Any) -> None:
    """A loss that is not finite in one share ends all, and each names the samples of all shares."""
    train = lab.settings(batch_size=24, accumulate=4)
    stories = []

    def diverging(group: Seated) -> None:
        with pytest.raises(DivergedError) as found:
            trained(lab, train, group, poison=5)
        stories.append(str(found.value))

    together(2, diverging)
    assert len(stories) == 2 and len(set(stories)) == 1 and "and 16 more" in stories[0]


def test_students_that_differ_end_loudly(lab: Any) -> None:
    """A student whose weights are not those of the others is noticed at a checkpoint."""
    train = lab.settings(batch_size=6, accumulate=2, epochs=1)

    def other(group: Seated) -> None:
        with pytest.raises(StillhouseError, match=r"after step 4 the students' weights differ.*same kind of processor"):
            trained(lab, train, group, seed=1 + group.share(2).start)

    together(2, other)

"""Knowledge: aligned with its batch, asked lazily, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import ModelError, StillhouseError
from stillhouse.knowledge.ask import NOTHING, Ask
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.knowledge.source import Answerer, AskedRows, KnowledgeSource, NoKnowledge, UnstoredSource
from stillhouse.models.build import Interface, build
from stillhouse.models.network import Network
from stillhouse.recipe.architectures import ModelSection, Normalisation

CPU = torch.device("cpu")


def batch(*ids: int, view: int = 0) -> Batch:
    keys = np.array(ids, np.int64)
    inputs = torch.stack([torch.full((1, 8, 8), each % 256, dtype=torch.uint8) for each in ids])
    return Batch(keys, np.full(len(ids), view, np.int64), inputs, torch.zeros(len(ids), dtype=torch.int64))


def answer(asked: Batch) -> Knowledge:
    return Knowledge(asked.sample_ids, asked.views, torch.from_numpy(asked.sample_ids).float()[:, None])


def inline(told: Callable[[Batch], Knowledge], group: int) -> UnstoredSource:
    """The teacher in this process, asked each time."""
    codec = Codec(Ask(), Encoding(), 1, {})
    return UnstoredSource(Ask(), codec, AskedRows(Answerer(told, group), codec))


def network() -> Network:
    section = ModelSection(arch="resnet", options={"width": 4, "blocks": [1, 1]})
    return build(section, Interface((1, 8, 8), True, 3), Normalisation(mean=(0.5,), std=(0.2,)), 1, "teacher")


def test_other_samples_are_refused_by_name() -> None:
    """Knowledge about another sample is refused with row, sample and view of both sides."""
    with pytest.raises(StillhouseError, match=r"row 1 is about sample 5, view 0, the batch holds sample 2, view 0"):
        answer(batch(1, 5, 3)).check_aligned(batch(1, 2, 3))


def test_other_views_are_refused_by_name() -> None:
    """Knowledge about another view of the right samples is refused too."""
    with pytest.raises(StillhouseError, match=r"row 0 is about sample 1, view 4, the batch holds sample 1, view 2"):
        answer(batch(1, 2, view=4)).check_aligned(batch(1, 2, view=2))


def test_other_sizes_are_refused() -> None:
    """Knowledge of more or fewer rows than the batch's is refused with both numbers."""
    with pytest.raises(StillhouseError, match="knowledge of 2 views came for a batch of 3"):
        answer(batch(1, 2)).check_aligned(batch(1, 2, 3))


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=9), st.data())
def test_parts_stay_aligned(ids: list[int], data: st.DataObject) -> None:
    """Cutting batch and knowledge at the same rows keeps them aligned, tensors included."""
    start = data.draw(st.integers(0, len(ids)))
    stop = data.draw(st.integers(start, len(ids)))
    whole = batch(*ids)
    known = Knowledge(whole.sample_ids, whole.views, torch.arange(len(ids)), {"t": torch.arange(len(ids))})
    part = known.part(start, stop)
    part.check_aligned(whole.part(start, stop))
    assert part.logits is not None
    assert part.logits.tolist() == part.features["t"].tolist() == list(range(start, stop))


def test_inline_answers_in_order_and_never_ahead() -> None:
    """The inline source takes and answers a batch only when it is asked for the next one."""
    log: list[str] = []

    def batches() -> Iterator[Batch]:
        for number in range(5):
            log.append(f"read {number}")
            yield batch(number)

    def told(asked: Batch) -> Knowledge:
        log.append(f"answer {asked.sample_ids[0]}")
        return answer(asked)

    answers = inline(told, 1).teach(batches())
    assert log == []
    for number in range(3):
        asked, known = next(answers)
        known.check_aligned(asked)
        log.append(f"train {number}")
    assert log == [f"{what} {number}" for number in range(3) for what in ("read", "answer", "train")]
    answers.close()  # type: ignore[attr-defined]
    assert next(answers, None) is None and len(log) == 9


@pytest.mark.parametrize("source", [inline(answer, 3), NoKnowledge()])
def test_every_source_keeps_the_contract(source: KnowledgeSource) -> None:
    """A source yields the very batches asked, in order, each with aligned knowledge, and can be asked again."""
    for _ in range(2):
        asked = [batch(3, 1), batch(2, 9), batch(4, 4)]
        found = list(source.teach(asked))
        assert [each for each, _ in found] == asked
        for each, known in found:
            known.check_aligned(each)
    waited = source.waits()
    assert set(waited) <= {"teacher"} and all(seconds > 0 for seconds in waited.values())
    assert not any(source.waits().values())


def test_errors_of_a_teacher_reach_the_student() -> None:
    """What a teacher raises comes out of the source unchanged."""

    def broken(asked: Batch) -> Knowledge:
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"):
        next(inline(broken, 1).teach([batch(1)]))


def test_a_teacher_out_of_step_is_caught() -> None:
    """An answer about other views is refused before it is handed on under the right names."""
    with pytest.raises(StillhouseError, match="row 0 is about sample 2, view 0, the batch holds sample 1, view 0"):
        next(inline(lambda asked: answer(batch(2, 1)), 2).teach([batch(1, 2)]))


def test_no_knowledge_says_nothing() -> None:
    """The source for controls answers with neither logits nor features."""
    _, known = next(NoKnowledge().teach([batch(1, 2)]))
    assert known.logits is None and known.features == {}


def test_digest_of_a_question() -> None:
    """Equal questions have equal digests whatever the order of features; any other difference shows."""
    asks = [Ask(), Ask(logits=False), Ask(features=("a",)), Ask(features=("a", "b"))]
    assert len({ask.digest for ask in asks}) == len(asks)
    assert Ask(features=("b", "a")).digest == Ask(features=("a", "b")).digest
    assert Ask().digest == Ask().digest


def test_a_wider_answer_covers_a_narrower_question() -> None:
    """A source that knows more than is asked may answer; one that knows less may not."""
    wide, narrow = Ask(features=("a", "b")), Ask(logits=False, features=("b",))
    assert wide.covers(narrow) and wide.covers(wide) and wide.covers(NOTHING)
    assert not narrow.covers(wide) and not NOTHING.covers(narrow) and not Ask().covers(narrow)


def test_empty_question_is_false() -> None:
    """A question that wants nothing is false, so that nobody runs a teacher for it."""
    assert not Ask(logits=False)
    assert Ask() and Ask(logits=False, features=("a",))

"""Parts of a group without its processes: what travels, and when a run gives up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stillhouse.data.batch import Batch, UnseenBatch
from stillhouse.foundation.errors import DivergedError, FleetError, Interrupted, StillhouseError
from stillhouse.foundation.events import Event, GroupChanged
from stillhouse.knowledge.ask import NOTHING
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.build import Interface, build
from stillhouse.recipe.architectures import Normalisation
from stillhouse.recipe.load import validate
from stillhouse.runner.course import Counted, Course
from stillhouse.runner.group import SILENT_S, Gathered, Patience, train_together
from stillhouse.runner.shares import pack, pack_share, unpack, unpack_share
from stillhouse.runner.sight import blind
from stillhouse.runner.student import Desk
from stillhouse.runtime.local.crew import Came, Gone, Said
from stillhouse.runtime.local.frames import Frame
from stillhouse.students.checkpoint import Checkpoints
from stillhouse.students.objective import LABELS_ONLY, Objective

from .conftest import values

TYPES = [torch.uint8, torch.int64, torch.float32, torch.float16, torch.bfloat16, torch.bool]


@given(
    shapes=st.lists(st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 3), max_size=3)), max_size=5),
)
def test_tensors_come_back_as_they_were(shapes: list[tuple[torch.dtype, list[int]]]) -> None:
    """Tensors of every type and shape, empty ones too, are the same after the journey."""
    sent = {
        str(number): torch.arange(int(np.prod(shape, dtype=np.int64))).view(shape).to(dtype)
        for number, (dtype, shape) in enumerate(shapes)
    }
    forms, body = pack(sent)
    found = unpack(forms, bytearray(body))
    assert list(found) == list(sent)
    for name, tensor in sent.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize(
    "forms",
    [[["a", "float32", [9]]], [["a", "object", [1]]], [["a", "uint8", [-1]]], [["a"]], 3, [["a", "uint8", "x"]]],
    ids=["too long", "no such type", "negative", "short", "a number", "no shape"],
)
def test_what_does_not_fit_is_refused(forms: Any) -> None:
    """Headers that lie about their bytes are refused with words, not read beyond their end."""
    with pytest.raises(StillhouseError, match="makes no sense"):
        unpack(forms, bytearray(16))


def test_a_share_is_the_rows_asked_for() -> None:
    """A share holds its rows of the batch and of all that is known about them, and nothing of the others."""
    ids, views = np.arange(6), np.full(6, 2)
    batch = Batch(ids, views, torch.rand(6, 3), torch.arange(6), torch.arange(6).flip(0), torch.rand(6))
    features = {"stage1": torch.rand(6, 2)}
    known = torch.tensor([True, False] * 3)
    knowledge = Knowledge(ids, views, torch.rand(6, 4), features, known)
    forms, body = pack_share(batch, knowledge, 2, 4)
    part, told = unpack_share(forms, bytearray(body), blind)
    told.check_aligned(part)
    assert part.sample_ids.tolist() == [2, 3] and part.views.tolist() == [2, 2]
    pairs = [
        (part.inputs, batch.inputs), (part.targets, batch.targets), (part.partners, batch.partners),
        (part.shares, batch.shares), (told.logits, knowledge.logits), (told.known, known),
        (told.features["stage1"], features["stage1"]),
    ]  # fmt: skip
    for found, whole in pairs:
        assert found is not None and whole is not None and torch.equal(found, whole[2:4])


def test_pixels_stay_where_they_can_be_made() -> None:
    """A share without pixels has those that its keys make; the batch it was cut from was never looked at."""

    def make(ids: NDArray[np.int64], views: NDArray[np.int64]) -> Batch:
        return Batch(ids, views, torch.from_numpy(ids * 10 + views), torch.zeros(len(ids), dtype=torch.int64))

    def looked(ids: NDArray[np.int64], views: NDArray[np.int64]) -> torch.Tensor:
        raise AssertionError("somebody looked")

    ids = np.arange(6)
    batch = UnseenBatch(ids, ids % 2, torch.arange(6), looked)
    forms, body = pack_share(batch, Knowledge(ids, ids % 2), 2, 5, pixels=False)
    part, _ = unpack_share(forms, bytearray(body), make)
    assert part.inputs.tolist() == [20, 31, 40] and part.targets.tolist() == [2, 3, 4]


class Doomed:
    """Students that die before they say a word."""

    def __init__(self, names: Sequence[str]) -> None:
        self._left = list(names)
        self.closed = False

    def poll(self, timeout_s: float) -> list[Came | Said | Gone]:
        return [Gone(self._left.pop(), "killed by SIGKILL")] if self._left else []

    def send(self, name: str, header: dict[str, Any], body: Any = b"") -> None:
        raise AssertionError("nobody came in")

    def close(self) -> None:
        self.closed = True


def course(folder: Path, events: list[Event], interrupted: Callable[[], int | None] = lambda: None) -> Course:
    """A training that never gets to a step."""
    train = {"epochs": 2, "batch_size": 400, "accumulate": 4}
    student = {"model": {"arch": "mlp", "options": {"hidden": [8]}}, "train": train}
    recipe = validate(values(student=student, fleet={"students": [2, 4]}))
    objective, interface = Objective(LABELS_ONLY), Interface((1, 8, 8), True, 10)
    with torch.random.fork_rng():
        network = build(recipe.student.model, interface, Normalisation(mean=(0.0,), std=(1.0,)), 0, "student")
    nothing = cast(Any, None)
    stream, source = cast(Any, SimpleNamespace(steps_per_epoch=1)), cast(Any, SimpleNamespace(counts=dict))
    return Course(
        recipe, "student", network, objective, source, stream, interface,
        Checkpoints(folder, "student", 0.0, 2, events.append), nothing, events.append, interrupted, 0,
        torch.device("cpu"), {},
    )  # fmt: skip


def test_a_run_gives_up_on_students_that_only_die(tmp_path: Path) -> None:
    """Deaths without a new checkpoint: one student fewer each time, down to the fewest, then an error that says why."""
    events, crews, asked = list[Event](), list[Doomed](), list[int]()

    def gather(wanted: int) -> Gathered:
        asked.append(wanted)
        crews.append(Doomed([str(number) for number in range(wanted)]))
        return Gathered(crews[-1], [str(number) for number in range(wanted)], None)

    with pytest.raises(FleetError, match="died 4 times without getting any further, at last: student 2 of 2: killed"):
        train_together(course(tmp_path, events), gather)
    assert asked == [4, 3, 2, 2] and all(each.closed for each in crews)
    assert [each.kind for each in events if isinstance(each, GroupChanged)] == ["lost"] * 4


class Scripted(Doomed):
    """Students who come in, and then say what they are told to say."""

    def __init__(self, names: Sequence[str], *said: tuple[str, dict[str, Any]]) -> None:
        super().__init__(names)
        self._news: list[Any] = [Came(name, {"host": "here", "pid": 1}) for name in names]
        self._news += [Said(name, header, bytearray()) for name, header in said]
        self.told: list[tuple[str, str]] = []

    def poll(self, timeout_s: float) -> list[Came | Said | Gone]:
        return [self._news.pop(0)] if self._news else []

    def send(self, name: str, header: dict[str, Any], body: Any = b"") -> None:
        self.told.append((name, header["do"]))


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ({"do": "ended", "how": "DivergedError", "why": "the loss is nan"}, DivergedError, "the loss is nan"),
        ({"do": "ended", "how": "difflib", "why": "odd"}, StillhouseError, "difflib: odd"),
        ({"do": "sing"}, FleetError, "says 'sing'"),
    ],
)
def test_what_a_student_raises_ends_the_run(
    tmp_path: Path, said: dict[str, Any], kind: type[StillhouseError], words: str
) -> None:
    """An error of any student is the run's own, of its kind and in its words; nobody begins again after it."""
    crew = Scripted(["one", "two"], ("two", said))
    with pytest.raises(kind, match=words):
        train_together(course(tmp_path, []), lambda wanted: Gathered(crew, ["one", "two"], None))
    assert crew.closed and ("two", "network") in crew.told


def test_a_signal_is_heard_while_students_start(tmp_path: Path) -> None:
    """Whoever stops a run whose students are not all there yet is not made to wait for them."""
    crew = Scripted(["one", "two"])
    asked = course(tmp_path, [], interrupted=lambda: 15)
    with pytest.raises(Interrupted, match="stopped while the students of student were starting") as found:
        train_together(asked, lambda wanted: Gathered(crew, ["one", "two"], None))
    assert found.value.exit_code == 143 and crew.closed


def test_teachers_tell_of_themselves_while_students_load(tmp_path: Path) -> None:
    """Who answers tells what happened to it when it is asked for counts: also while no student takes anything."""
    told, crew = list[int](), Scripted(["one", "two"])
    source = SimpleNamespace(counts=lambda: told.append(1) or {})
    asked = replace(course(tmp_path, [], interrupted=lambda: 15 if len(told) > 2 else None), source=cast(Any, source))
    with pytest.raises(Interrupted):
        train_together(asked, lambda wanted: Gathered(crew, ["one", "two"], None))
    assert len(told) == 3


def test_what_is_of_no_batch_is_told_once() -> None:
    """What a store wrote is told by the next progress, of whichever group; of batches, when their step was taken."""
    unsaid, written = Counter[str](), iter(range(1, 9))
    source = cast(Any, SimpleNamespace(counts=lambda: {"bytes_written": next(written), "hits": 10}))
    first, second = Counted(source, unsaid), Counted(source, unsaid)
    first.note(0)
    second.note(3)
    assert second.before(1) == {"bytes_written": 3}, "not batch 3's hits"
    second.note(4)
    assert second.before(4) == {"bytes_written": 3, "hits": 10} and second.before(4) == {}
    second.note()
    assert second.before(5) == {"bytes_written": 4, "hits": 20}
    second.note(6)
    second.begin_anew()
    assert second.before(9) == {"bytes_written": 11}, "batches that are handed out again count then"


class Pausing(Scripted):
    """Students who stop when they are told that no share will come, not when they are told to stop after a step."""

    def send(self, name: str, header: dict[str, Any], body: Any = b"") -> None:
        super().send(name, header, body)
        if header["do"] == "pause":
            ended = {"do": "ended", "how": "Interrupted", "why": "stopped at step 0", "signal": header["signal"]}
            self._news.append(Said(name, ended, bytearray()))


def test_students_stop_where_their_shares_end(tmp_path: Path) -> None:
    """A signal that ends the waiting for knowledge has the students save what they have, and stop, without a step."""

    def teach(batches: Any) -> Iterator[Any]:
        raise Interrupted("stopped while waiting for a teacher", 15)
        yield

    crew = Pausing(["one", "two"], *((name, {"do": "sees", "reads": "mapped"}) for name in ("one", "two")))
    source = SimpleNamespace(teach=teach, waits=dict, counts=dict)
    stream = SimpleNamespace(steps_per_epoch=1, batches=lambda *steps, unseen: iter(()))
    asked = replace(course(tmp_path, []), source=cast(Any, source), stream=cast(Any, stream))
    with pytest.raises(Interrupted, match="stopped at step 0") as found:
        train_together(asked, lambda wanted: Gathered(crew, ["one", "two"], None))
    assert found.value.exit_code == 143 and ("two", "dismiss") in crew.told


def test_a_student_that_waits_for_a_share_hears_that_none_will_come() -> None:
    """A student takes the shares that came for its job, and ends its waiting for the next when the run says so."""
    forms, body = pack_share(*taught(), 0, 2)
    own, other = ({"job": job, "number": 4, "forms": forms} for job in (3, 2))
    said = {
        "share": [Frame(own, bytearray(body)), Frame(other, bytearray())],
        "pause": [Frame({"signal": 2}, bytearray())],
    }
    line = SimpleNamespace(heard=lambda kind, wait_s=0.0: said[kind].pop() if said[kind] else None)
    shares = Desk(cast(Any, line), blind, NOTHING, 2, {"steps_per_epoch": 9, "job": 3}).batches(4, 9)
    assert next(shares).sample_ids.tolist() == [0, 1]
    with pytest.raises(Interrupted) as found:
        next(shares)
    assert found.value.exit_code == 130


def taught() -> tuple[Batch, Knowledge]:
    """A batch of two, of which nothing is known."""
    ids = np.arange(2)
    return Batch(ids, ids, torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)), Knowledge(ids, ids)


def test_a_run_that_was_stopped_itself_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes in which the run did not look (Ctrl-Z) are no silence of its students; a minute in which it did is."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    patience = Patience()
    now[0] += 10 * SILENT_S
    looks = []
    for _ in range(int(SILENT_S) + 2):
        looks.append(patience.is_over(9))
        now[0] += 1.0
    assert looks.index(True) >= SILENT_S - 1 and looks[-1]

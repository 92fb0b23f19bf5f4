"""What the dispatcher does while nothing goes wrong: who gets which item, in what order answers come, what fits."""

from __future__ import annotations

import sys

import pytest

from stillhouse.runtime import work as w
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.simulated.backend import Simulated
from stillhouse.runtime.simulated.simulation import Simulation, Student
from stillhouse.runtime.simulated.weather import Kind, VirtualClock, Weather

from .by_hand import ByHand, sent


def test_an_answer_is_kept_and_delivered() -> None:
    """An item goes out, its answer is kept, delivered, taken."""
    play = ByHand()
    play.join("a")
    assert sent(play.ask()) == [("a", 0)]
    assert play.answer("a", 0) == [w.Keep("a", w.Lease("s", 0, 1)), w.Deliver("s", 0)]
    assert play.take(0) == []
    assert play.dispatcher.wake_at() is None


def test_answers_are_delivered_in_order() -> None:
    """Whatever comes first, each consumer is delivered 0, 1, 2."""
    play = ByHand()
    for worker in "abc":
        play.join(worker)
    given = dict(sent(play.ask(items=3)))
    by_number = {number: worker for worker, number in given.items()}
    play.answer(by_number[2], 2)
    assert not play.told(w.Deliver)
    play.answer(by_number[1], 1)
    assert not play.told(w.Deliver)
    play.answer(by_number[0], 0)
    assert play.told(w.Deliver) == [w.Deliver("s", 0), w.Deliver("s", 1), w.Deliver("s", 2)]


def test_room_is_bytes_and_one_item_always_fits() -> None:
    """A window bounds bytes from asking to taking; a single item may be larger than the window."""
    play = ByHand(window_bytes=10)
    play.join("a")
    assert play.dispatcher.room("s") == sys.maxsize
    play.ask(nbytes=50)
    assert play.dispatcher.room("s") == 0
    play.answer("a", 0)
    assert play.dispatcher.room("s") == 0, "an answer not taken still takes memory"
    play.take(0)
    play.ask(nbytes=4)
    assert play.dispatcher.room("s") == 6


@pytest.mark.parametrize(
    "event",
    [
        w.Submitted(w.Item("s", 1, 1, 11)),
        w.Submitted(w.Item("s", 2, 1, 1)),
        w.Submitted(w.Item("s", 1, 0, 1)),
        w.Taken("s", 0),
        w.Joined("a", 1.0, 1),
        w.Joined("b", 1.0, 0),
    ],
)
def test_a_callers_error_is_told(event: w.Event) -> None:
    """Beyond the window, out of order, empty, taken before it is delivered, joined twice, without a slot: an
    assertion.
    """
    play = ByHand(window_bytes=10)
    play.join("a")
    play.ask()
    with pytest.raises(AssertionError):
        play.handle(event)


def test_time_does_not_run_back() -> None:
    """An event before the last one is the caller's error."""
    play = ByHand()
    play.tick(5.0)
    with pytest.raises(AssertionError, match="back"):
        play.tick(4.0)


def test_an_item_goes_where_it_should_be_done_first() -> None:
    """Of idle workers the fastest gets it, and a fast one with work before a slow one without."""
    play = ByHand()
    play.join("slow", 8.0)
    play.join("fast", 1.0)
    assert sent(play.ask(items=2)) == [("fast", 0), ("fast", 1)]
    assert sent(play.ask()) == [("slow", 2)], "the fast one holds all that it may"


def test_no_worker_idles_while_items_wait() -> None:
    """With five teachers and three students every teacher has work, and more than it works on."""
    play = ByHand()
    for worker in "abcde":
        play.join(worker)
    for consumer in "xyz":
        play.ask(consumer, items=4)
    held = {each.name: each.held for each in play.dispatcher.status(play.now).workers}
    assert held == dict.fromkeys("abcde", 2)


def test_the_consumer_with_the_smallest_buffer_is_served_first() -> None:
    """Who has taken all gets the next worker, though others asked before, and equals take turns."""
    play = ByHand()
    play.ask("rich", items=6)
    play.ask("poor", items=2)
    play.join("a", slots=1)
    order = [play.told(w.Send)[0].lease.consumer]
    for _ in range(5):
        lease = play.told(w.Send)[0].lease
        play.answer("a", lease.number, 1, lease.consumer)
        order.append(play.told(w.Send)[0].lease.consumer)
    assert order == ["rich", "poor", "rich", "poor", "rich", "rich"]
    play = ByHand()
    play.ask("rich", items=4)
    play.join("a", slots=1)
    play.answer("a", 0, 1, "rich")
    play.ask("poor", items=1)
    play.answer("a", 1, 1, "rich")
    assert play.told(w.Send)[0].lease.consumer == "poor"


def test_who_takes_is_needier() -> None:
    """Need is counted from what was taken: a consumer that took its buffer comes before its turn."""
    play = ByHand()
    play.join("a", slots=1)
    play.ask("x", items=6)
    play.ask("y", items=6)
    for consumer, number in (("x", 0), ("y", 0), ("x", 1), ("y", 1)):
        play.answer("a", number, 1, consumer)
    assert play.told(w.Send)[0].lease.consumer == "x"
    play.take(0, "x")
    play.take(1, "x")
    play.answer("a", 2, 1, "x")
    assert play.told(w.Send)[0].lease.consumer == "x", "y has two answers that it did not take"


def test_credits_hide_the_round_trip() -> None:
    """Two items at a worker as a rule; more where it does several in a round trip; one where it needs a hundred of
    them.
    """
    settings = Settings(round_trip_s=0.05, credits_max=8)
    assert settings.credits(0.1, 1, 16, 0.05) == 2
    assert settings.credits(0.01, 1, 16, 0.05) == 6
    assert settings.credits(0.0, 1, 16, 0.05) == 8, "no more than credits_max"
    assert settings.credits(0.01, 1, 3, 0.05) == 3, "no more than it can hold"
    assert settings.credits(0.01, 10, 16, 0.05) == 2, "it is items that count"
    assert settings.credits(10.0, 1, 16, 0.05) == 1
    assert settings.credits(None, 1, 16, 0.05) == 1
    assert settings.credits(0.1, 1, 1, 0.05) == 1


def test_credits_follow_the_measured_pace() -> None:
    """A worker of unknown pace gets one item; when it proved fast, as many as hide the round trip."""
    play = ByHand(round_trip_s=0.5)
    play.join("a", None)
    assert sent(play.ask(items=9)) == [("a", 0)]
    play.now = 0.1
    assert len(sent(play.answer("a", 0))) == 6


def test_credits_follow_the_measured_way() -> None:
    """A worker far away idles until its items have come: it gets more of them; its pace stays what it says it is."""
    play = ByHand(round_trip_s=0.05)
    play.join("a", 0.1, slots=32)
    assert len(sent(play.ask(items=80))) == 2
    held: list[tuple[float, int]] = [(0.0, 0), (0.0, 1)]
    worker_free_s = 0.0
    while held and play.now < 30.0:
        sent_s, number = held.pop(0)
        worker_free_s = max(worker_free_s, sent_s + 0.5) + 0.1
        play.now = worker_free_s + 0.5
        held += [(play.now, each) for _, each in sent(play.handle(w.Answered("a", w.Lease("s", number, 1), 0.1)))]
        if number == 40:
            assert len(held) >= 10, "a second there and back, a tenth of a second each"
    (status,) = play.dispatcher.status(play.now).workers
    assert status.pace_s == pytest.approx(0.1)


def test_no_worker_takes_longer_than_what_passed() -> None:
    """A worker's word for the time it took is believed up to what passed since the loan was sent."""
    play = ByHand()
    play.join("a", None)
    play.ask(items=2)
    play.now = 1.0
    play.handle(w.Answered("a", w.Lease("s", 0, 1), 50.0))
    (status,) = play.dispatcher.status(play.now).workers
    assert status.pace_s == 1.0


def test_a_far_worker_is_kept_busy() -> None:
    """Messages that take 50 ms either way, five items' time, cost a worker little of its throughput."""
    clock, pace_s = VirtualClock(), 0.01
    workers = Simulated(clock, [Kind(pace_s, slots=32)], Weather(delay_s=5 * pace_s), 1, int)
    student = Student("s", (1,) * 5000, step_s=pace_s / 10)
    simulation = Simulation(Settings(window_bytes=200), workers, clock, [student], 1)
    simulation.run(10.0)
    begun = simulation.takers["s"].taken
    simulation.run(30.0)
    assert simulation.takers["s"].taken - begun > 0.75 * 20.0 / pace_s


def test_pace_is_measured_from_the_previous_answer() -> None:
    """What waits behind another item is not slow: its time begins when the worker could begin with it."""
    play = ByHand()
    play.join("a", None)
    play.ask(items=3)
    for number in range(3):
        play.now += 2.0
        play.answer("a", number)
    (status,) = play.dispatcher.status(play.now).workers
    assert status.pace_s == pytest.approx(2.0)
    assert status.busy_share == pytest.approx(1.0)


def test_leases_allow_for_the_place_in_the_queue() -> None:
    """The second item's deadline lies a whole lease behind the first one's, in units of the worker's pace."""
    play = ByHand(lease_factor=4.0)
    play.join("a", 2.0)
    play.ask(items=2, size=3)
    play.tick(0.0)
    play = ByHand(lease_factor=4.0)
    play.join("a", 2.0)
    play.ask(size=3)
    assert play.told(w.Send)[0].deadline_s == 24.0
    play.ask(size=3)
    assert play.told(w.Send)[0].deadline_s == 48.0


def test_a_closed_consumer_is_forgotten() -> None:
    """Its items are dropped: workers need not do them, late answers are not kept, its name does not come back."""
    play = ByHand()
    play.join("a", slots=2)
    play.ask(items=3)
    play.handle(w.Closed("s"))
    assert [each.lease.number for each in play.told(w.Revoke)] == [0, 1]
    assert play.answer("a", 0) == [w.Drop("a", w.Lease("s", 0, 1))]
    play.skip("a", 1)
    assert play.sent() == []
    assert play.handle(w.Closed("unknown")) == []
    with pytest.raises(AssertionError, match="closed"):
        play.ask()


def test_a_draining_worker_finishes_what_it_holds() -> None:
    """It gets nothing more, its answers count, and then it is let go politely; an idle one at once."""
    play = ByHand()
    play.join("a")
    play.ask(items=3)
    assert play.handle(w.Draining("a", "told to")) == []
    assert play.answer("a", 0)[0] == w.Keep("a", w.Lease("s", 0, 1))
    assert play.sent() == []
    assert play.answer("a", 1)[-1] == w.Dismiss("a", "it finished what it held", kill=False)
    play.gone("a")
    assert play.dispatcher.status(play.now).totals.lost == 0
    play.join("b", slots=1)
    assert play.sent() == [("b", 2)]
    play.join("c")
    assert play.handle(w.Draining("c", "told to")) == [w.Dismiss("c", "told to", kill=False)]


def test_unknown_workers_change_nothing() -> None:
    """What comes of a worker that is gone is dropped without a word."""
    play = ByHand()
    play.ask()
    assert play.answer("ghost", 0) == [w.Drop("ghost", w.Lease("s", 0, 1))]
    for event in (play.fail("ghost", 0), play.skip("ghost", 0), play.gone("ghost")):
        assert event == []
    assert play.handle(w.Draining("ghost", "told to")) == []


def test_status_tells_buffers_and_busy_shares() -> None:
    """What the scaling policy needs: who is starved, what is buffered, who works how much."""
    play = ByHand()
    play.join("a", slots=1)
    play.join("b", slots=1)
    play.ask(items=3, size=2, nbytes=5)
    play.now = 4.0
    play.answer("b", 1)
    play.tick(8.0)
    status = play.dispatcher.status(8.0)
    (student,) = status.consumers
    assert (student.open, student.open_units, student.open_bytes) == (3, 6, 15)
    assert (student.buffered, student.buffered_units, student.ready, student.starved) == (1, 2, 0, True)
    assert [each.busy_share for each in status.workers] == [1.0, 1.0]
    assert [(each.items, each.units) for each in status.workers] == [(0, 0), (1, 2)]
    play.answer("a", 0)
    (student,) = play.dispatcher.status(8.0).consumers
    assert (student.ready, student.starved) == (2, False)


@pytest.mark.parametrize("wrong", [{"window_bytes": 0}, {"hedge_factor": 1.0}, {"round_trip_s": -1.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """A number that makes no sense is named."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


def test_time_runs_when_a_loan_is_on_its_way() -> None:
    """A loan that is packed first is neither late nor counted as work until it is sent; a large one is longer away."""
    fleet = ByHand()
    fleet.handle(w.Joined("a", 0.1, 8, packed=True))
    fleet.ask(items=2)
    assert fleet.dispatcher.wake_at() is None
    fleet.tick(50.0)
    fleet.join("b")
    assert fleet.sent() == [] and fleet.dispatcher.status(50.0).workers[0].busy_s == 0.0
    fleet.handle(w.Sent("a", w.Lease("s", 0, 1), 0.0))
    assert fleet.told(w.Send) == []
    fleet.now = 50.2
    assert fleet.dispatcher.status(50.2).workers[0].busy_s == pytest.approx(0.2)
    fleet.answer("a", 0)
    assert fleet.dispatcher.wake_at() is None, "the next one is being packed"
    fleet.handle(w.Sent("a", w.Lease("s", 1, 1), 2.0))
    fleet.tick(53.1)
    assert fleet.sent() == [("b", 1)] and not fleet.told(w.Suspect), "an idle one may try; nobody is blamed"
    fleet.tick(53.3)
    assert [each.worker for each in fleet.told(w.Suspect)] == ["a"]

"""Silence: leases that end, suspects and what they keep, late answers, hedges."""

from __future__ import annotations

import pytest

from stillhouse.runtime import work as w

from .by_hand import ByHand, sent


def test_a_silent_worker_becomes_suspect_and_is_stopped() -> None:
    """Its lease ends by its own pace: what it holds is lent again, it gets nothing; beyond patience it is killed."""
    play = ByHand(lease_factor=4.0)
    play.join("a", 1.0)
    play.ask(items=3)
    while not play.told(w.Suspect):
        play.wake()
    assert play.now == 4.0
    play.join("b", slots=1)
    assert play.sent() == [("b", 0)]
    play.answer("b", 0, 2)
    assert play.told(w.Revoke) == [w.Revoke("a", w.Lease("s", 0, 1))]
    assert play.sent() == [("b", 1)]
    while not play.told(w.Dismiss):
        play.wake()
    assert play.now == 14.0
    assert play.told(w.Dismiss) == [w.Dismiss("a", "silent for 14 s", kill=True)]
    play.gone("a")
    assert play.dispatcher.status(play.now).totals.lost == 1


def test_a_worker_that_is_let_go_and_stays_is_killed() -> None:
    """It may hang before it hears that it may go: its place is free again when patience ends."""
    play = ByHand()
    play.join("a")
    assert play.handle(w.Draining("a", "told to")) == [w.Dismiss("a", "told to", kill=False)]
    assert [(each.worker, each.kill) for each in play.wake() if isinstance(each, w.Dismiss)] == [("a", True)]
    assert play.now == 10.0
    assert play.dispatcher.wake_at() is None, "and then its end is the backend's"


def test_a_late_answer_to_an_open_item_is_taken() -> None:
    """An older generation is as good as any; the worker is trusted again and goes on with what nobody else took."""
    play = ByHand()
    play.join("a", 1.0)
    play.ask(items=2)
    play.tick(4.0)
    assert play.told(w.Suspect)
    play.now = 5.0
    assert play.answer("a", 0) == [w.Keep("a", w.Lease("s", 0, 1)), w.Deliver("s", 0), w.Trust("a")]
    play.answer("a", 1)
    assert w.Keep("a", w.Lease("s", 1, 1)) in play.out, "its second item stayed with it"
    assert play.dispatcher.status(play.now).totals.reissued == 0


def test_what_comes_back_undone_is_not_asked_again() -> None:
    """A loan that is given back and lent on is no question asked again; one that was lost, failed or hung with is."""
    play = ByHand()

    def reissued() -> int:
        return play.dispatcher.status(play.now).totals.reissued

    play.ask()
    for number in range(3):
        play.handle(w.Joined(f"s#{number}", None, 1, sure=True))
        assert play.sent() == [(f"s#{number}", 0)]
        play.handle(w.Draining(f"s#{number}", "the student goes on"))
        play.skip(f"s#{number}", 0, number + 1)
    assert reissued() == 0
    play.join("a", 1.0)
    play.gone("a")
    play.join("b", 1.0)
    assert play.sent() == [("b", 0)] and reissued() == 1, "lost"
    play.fail("b", 0, 5)
    assert play.sent() == [("b", 0)] and reissued() == 2, "failed"
    play.tick(99.0)
    play.join("c", 1.0)
    assert play.sent() == [("c", 0)] and reissued() == 3, "hung"


def test_a_late_answer_to_a_closed_item_is_dropped() -> None:
    """The first answer wins; the other worker hears that its work is not needed."""
    play = ByHand()
    play.join("a", 1.0)
    play.ask()
    play.tick(4.0)
    play.join("b", 1.0)
    assert play.told(w.Send) == [w.Send("b", w.Lease("s", 0, 2), 8.0)]
    play.answer("a", 0)
    assert play.out[:3] == [w.Keep("a", w.Lease("s", 0, 1)), w.Revoke("b", w.Lease("s", 0, 2)), w.Deliver("s", 0)]
    assert play.answer("b", 0, 2) == [w.Drop("b", w.Lease("s", 0, 2))]


def test_the_same_answer_twice_counts_once() -> None:
    """A duplicate is dropped, and teaches nothing about the worker's pace."""
    play = ByHand()
    play.join("a", 1.0)
    play.ask(items=2)
    play.now = 1.0
    play.answer("a", 0)
    assert play.answer("a", 0) == [w.Drop("a", w.Lease("s", 0, 1))]
    assert play.dispatcher.status(1.0).workers[0].pace_s == 1.0


def woken() -> ByHand:
    """A worker that was silent answers the first of its two items, while another one has the second."""
    play = ByHand()
    play.join("a", 1.0)
    play.ask(items=2)
    play.tick(4.0)
    play.join("b", 1.0)
    play.now = 4.5
    play.answer("a", 0)
    return play


def test_a_trusted_worker_skips_what_another_has_taken() -> None:
    """When it wakes, it need not do what others work on; it gets new work instead."""
    play = woken()
    assert w.Revoke("a", w.Lease("s", 1, 1)) in play.out


def test_a_slow_workers_oldest_item_is_hedged() -> None:
    """An idle worker that should be done with it in half the time gets it too; the loser is called back."""
    play = ByHand()
    play.join("slow", 4.0)
    play.ask(items=2)
    play.join("fast", 1.0)
    assert play.sent() == [("fast", 0)]
    assert play.told(w.Send)[0].lease.generation == 2
    play.now = 1.0
    play.answer("fast", 0, 2)
    assert w.Revoke("slow", w.Lease("s", 0, 1)) in play.out
    assert ("fast", 1) in play.sent(), "then the next one is the oldest"
    play.skip("slow", 0)
    assert play.dispatcher.status(1.0).totals.hedged == 2


def test_a_late_loan_is_hedged_before_its_lease_ends() -> None:
    """A worker that takes much longer than it should is not waited for while another idles."""
    play = ByHand(lease_min_s=60.0)
    play.join("a", 1.0)
    play.ask()
    play.join("b", 1.0)
    assert play.out == [], "just as fast: no reason"
    while not play.sent():
        play.wake()
    assert play.sent() == [("b", 0)]
    assert play.now < 10


def test_at_most_two_loans_and_no_hedge_while_items_wait() -> None:
    """A third idle worker gets no third loan; a worker with pending items to do hedges nothing."""
    play = ByHand()
    play.join("slow", 10.0, slots=1)
    play.ask(items=1)
    play.join("fast", 1.0)
    play.join("third", 0.1)
    assert play.out == []
    play = ByHand()
    play.join("slow", 10.0, slots=1)
    play.ask(items=3)
    play.join("fast", 1.0)
    assert play.sent() == [("fast", 1), ("fast", 2)]


def test_a_frozen_fleet_goes_on_when_it_thaws() -> None:
    """All workers silent: nothing is lost, and nothing is lent twice where nobody else could do it."""
    play = ByHand()
    play.join("a", 1.0, slots=2)
    play.ask(items=4)
    play.tick(4.0)
    play.tick(9.0)
    taken = []
    for number in range(4):
        play.now += 1.0
        play.answer("a", number)
        taken += [each.number for each in play.told(w.Deliver)]
    assert taken == [0, 1, 2, 3]


def test_slower_is_learned_from_one_answer() -> None:
    """A worker that became ten times slower is suspect once, then its leases are long enough."""
    play = ByHand(lease_min_s=0.1)
    play.join("a", 1.0, slots=1)
    play.ask(items=3)
    play.tick(4.0)
    assert play.told(w.Suspect)
    play.now = 10.0
    play.answer("a", 0)
    play.tick(19.9)
    assert not play.told(w.Suspect)
    pace_s = play.dispatcher.status(play.now).workers[0].pace_s
    assert pace_s == pytest.approx(2.75), "one surprise counts eight times at most"


def test_small_items_say_little_of_a_unit() -> None:
    """Who computes whole groups takes as long for one unit as for a hundred: neither slow for that, nor late."""
    play = ByHand(lease_min_s=0.1)
    play.join("a", 0.01, slots=1)
    for number, size in enumerate((100, 100, *(1,) * 10)):
        play.ask(size=size)
        play.tick(play.now + 1.0)
        assert not play.told(w.Suspect)
        play.answer("a", number)
        play.take(number)
    pace_s = play.dispatcher.status(play.now).workers[0].pace_s
    assert pace_s == pytest.approx(0.01, rel=0.3)


def test_a_full_item_outweighs_small_ones() -> None:
    """A worker known by small items only shows its true pace with the first full one."""
    play = ByHand()
    play.join("a", None, slots=1)
    for number, size in enumerate((1, 1, 100)):
        play.ask(size=size)
        play.now += 1.0
        play.answer("a", number)
        play.take(number)
    pace_s = play.dispatcher.status(play.now).workers[0].pace_s
    assert pace_s == pytest.approx(0.04, rel=0.1), "seconds a unit, not 0.75"


def test_an_item_is_not_sent_to_who_holds_it_still() -> None:
    """A loan called back and not yet skipped: its worker gets the item again only when the skip is told."""
    play = woken()
    play.skip("b", 0, 2)
    play.gone("b")
    assert play.sent() == []
    play.skip("a", 1)
    assert play.sent() == [("a", 1)]


def test_an_overdue_worker_is_not_thought_to_be_done_soon() -> None:
    """What is overdue may take as long again: new work goes to who keeps its time."""
    play = ByHand()
    play.join("a", 1.0)
    play.join("b", 1.5)
    assert sent(play.ask(items=2)) == [("a", 0), ("b", 1)]
    play.now = 3.0
    play.answer("b", 1)
    play.ask()
    assert play.sent() == [("b", 2)]
    play.now = 3.9
    play.ask()
    assert play.sent() == [("b", 3)]


def test_trusted_and_suspect_again() -> None:
    """What stays with a worker gets a lease by its new pace, and may be lost a second time."""
    play = ByHand()
    play.join("a", 1.0)
    play.ask(items=3)
    play.tick(4.0)
    play.now = 10.0
    play.answer("a", 0)
    play.tick(20.9)
    assert not play.told(w.Suspect), "its pace is 2.75 s now"
    play.tick(21.0)
    assert play.told(w.Suspect)
    play.join("b", 1.0, slots=3)
    play.answer("b", 1, 2)
    assert play.told(w.Deliver) == [w.Deliver("s", 1)]

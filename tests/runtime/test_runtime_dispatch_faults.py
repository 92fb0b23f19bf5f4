"""Death and failure: what a worker held is lent again, who is blamed for it, and when an item is given up."""

from __future__ import annotations

from stillhouse.runtime import work as w

from .by_hand import ByHand, sent


def test_what_a_dead_worker_held_is_lent_again_first() -> None:
    """The oldest first, before anything that was never lent, in new generations."""
    play = ByHand()
    play.join("a")
    play.ask(items=4)
    play.gone("a")
    play.join("b", slots=1)
    assert play.told(w.Send)[0].lease == w.Lease("s", 0, 2)
    order = []
    for number, generation in ((0, 2), (1, 2), (2, 1)):
        play.answer("b", number, generation)
        order += play.sent()
    assert order == [("b", 1), ("b", 2), ("b", 3)]


def test_the_head_of_a_line_overtakes_what_a_survivor_has_not_begun() -> None:
    """A dead worker's item that a student waits for is the next that the busy survivor does, not the one after."""
    play = ByHand(round_trip_s=0.5)
    play.join("a")
    play.join("b")
    assert sent(play.ask(items=5)) == [("a", 0), ("b", 1), ("a", 2), ("b", 3)]
    play.gone("a")
    assert play.told(w.Revoke) == [w.Revoke("b", w.Lease("s", 3, 1))] and play.sent() == []
    play.answer("b", 1)
    assert play.sent() == [("b", 0)]
    play.skip("b", 3)
    assert play.sent() == [("b", 2)]
    play.answer("b", 0, 2)
    assert play.told(w.Deliver) == [w.Deliver("s", 0), w.Deliver("s", 1)]
    assert play.sent() == [("b", 3)]


def test_no_head_of_another_line_is_overtaken() -> None:
    """What some other student waits for next is not called back."""
    play = ByHand(round_trip_s=0.5)
    play.join("a", slots=1)
    play.ask("s")
    play.join("b")
    play.ask("t", items=1)
    play.ask("u", items=1)
    play.gone("a")
    assert play.told(w.Revoke) == []


def test_only_what_a_dead_worker_worked_on_is_blamed() -> None:
    """Of what it held the oldest open item tells of it, the others don't."""
    play = ByHand(tries_max=1)
    play.join("a")
    play.ask(items=3)
    play.answer("a", 0)
    play.gone("a")
    assert play.told(w.GiveUp) == [w.GiveUp("s", 1, (w.Attempt("a", 1, 0.0, "it died"),))]
    play.join("b")
    assert play.sent() == [("b", 2)]
    play.answer("b", 2, 2)
    assert play.told(w.Deliver) == [w.Deliver("s", 2)]


def test_failures_are_told_in_the_items_place() -> None:
    """An item that fails everywhere is given up with its story: who, which loan, when, why; then comes the next one."""
    play = ByHand(tries_max=3)
    play.join("a", slots=1)
    play.join("b", slots=1)
    play.ask(items=2)
    holder, generation = "a", 1
    for at_s in (1.0, 2.0, 3.0):
        play.now = at_s
        if play.told(w.Send) and at_s > 1:
            (send,) = [each for each in play.told(w.Send) if each.lease.number == 0]
            holder, generation = send.worker, send.lease.generation
        play.fail(holder, 0, generation)
        if at_s == 1.0:
            play.answer("b", 1)
    (end,) = play.told(w.GiveUp)
    assert (end.consumer, end.number) == ("s", 0)
    assert [(each.generation, each.at_s, each.why) for each in end.story] == [
        (1, 1.0, "it failed"), (2, 2.0, "it failed"), (3, 3.0, "it failed")
    ]  # fmt: skip
    assert {each.worker for each in end.story} == {"a", "b"}
    assert play.told(w.Deliver) == [w.Deliver("s", 1)]
    play.take(0)
    play.take(1)


def test_an_item_is_not_given_up_on_one_workers_word() -> None:
    """In a fleet that has had more than one, two must have gone wrong with it; a lone worker's word is enough."""
    play = ByHand(tries_max=2)
    play.join("a", slots=1)
    play.ask()
    play.fail("a", 0)
    play.fail("a", 0, 2)
    assert play.told(w.GiveUp)
    play = ByHand(tries_max=2)
    play.join("gone", slots=1)
    play.gone("gone")
    play.join("a", slots=1)
    play.ask()
    for generation in (1, 2, 3):
        play.fail("a", 0, generation)
        assert play.sent() == [("a", 0)]
    play.fail("a", 0, 4)
    assert play.told(w.GiveUp), "twice the tries end it in any case"


def test_a_worker_that_failed_an_item_is_spared_it() -> None:
    """Another one tries, though it is slower."""
    play = ByHand()
    play.join("fast", 1.0)
    play.join("slow", 2.0)
    play.ask()
    assert play.sent() == [("fast", 0)]
    play.fail("fast", 0)
    assert play.sent() == [("slow", 0)]


def test_an_item_blamed_twice_travels_alone() -> None:
    """Nothing joins it where it is: no innocent item is blamed for it."""
    play = ByHand()
    play.ask()
    for worker in "ab":
        play.join(worker)
        play.gone(worker)
    play.ask(items=3)
    play.join("c")
    assert play.sent() == [("c", 0)]
    play.ask()
    assert play.sent() == []
    play.answer("c", 0, 3)
    assert play.sent() == [("c", 1), ("c", 2)]


def test_a_worker_is_emptied_for_a_solo_item() -> None:
    """With work in plenty a solo item would wait for ever: one worker gets nothing until it is empty, then that
    item.
    """
    play = ByHand(tries_max=9)
    play.join("a", slots=1)
    play.ask()
    play.gone("a")
    play.join("b", slots=1)
    play.gone("b")
    play.ask(items=9)
    play.join("c", slots=2)
    assert play.sent() == [("c", 0)], "it is alone there"
    play.join("d", slots=2)
    assert play.sent() == [("d", 1), ("d", 2)]
    play.gone("c")
    play.answer("d", 1)
    assert play.sent() == [], "being emptied"
    play.answer("d", 2)
    assert play.sent() == [("d", 0)]
    play.answer("d", 0, 4)
    assert play.sent() == [("d", 3), ("d", 4)]


def test_many_workers_die_and_nothing_is_lost() -> None:
    """All but one of ten workers die in the middle: the last does everything, in order."""
    play = ByHand()
    for number in range(10):
        play.join(f"w{number}", slots=2)
    play.ask(items=20)
    for number in range(9):
        play.gone(f"w{number}")
    delivered: list[int] = []
    for _ in range(40):
        held = list(play.dispatcher._state.workers["w9"].held)
        if not held:
            break
        play.answer("w9", held[0].number, held[0].generation)
        delivered += [each.number for each in play.told(w.Deliver)]
    assert delivered == list(range(20))
    assert sent(play.out) == []


def test_a_loan_is_blamed_once() -> None:
    """Too late and then failed is one blame; and what lay behind a hung worker's first item is not blamed at its
    end.
    """
    play = ByHand(tries_max=2)
    play.join("a", 1.0)
    play.ask()
    play.tick(4.0)
    play.fail("a", 0)
    assert not play.told(w.GiveUp)
    play = ByHand()
    play.join("a", 1.0)
    play.ask(items=2)
    play.tick(4.0)
    play.join("b", 1.0, slots=1)
    play.answer("b", 0, 2)
    play.gone("a")
    assert play.dispatcher._state.consumers["s"].items[1].story == ()


def test_an_item_goes_back_when_nobody_else_is_left() -> None:
    """A worker is spared what it failed, until the others leave."""
    play = ByHand()
    play.join("a", 1.0, slots=1)
    play.join("b", 1.0, slots=1)
    play.ask(items=2)
    play.fail("a", 0)
    assert play.sent() == []
    play.handle(w.Draining("b", "told to"))
    assert play.sent() == [("a", 0)]

"""``check()`` notices: every table damaged by hand is an error that says what is broken."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from stillhouse.runtime import work as w
from stillhouse.runtime.dispatch.leases import ANSWERED, PENDING
from stillhouse.runtime.dispatch.state import State

from .by_hand import ByHand


def busy() -> ByHand:
    """Answered, leased and fresh items of two consumers; two workers at work, one suspect, one idle."""
    play = ByHand(window_bytes=8)
    play.join("hung", slots=1)
    play.ask("s", items=1)
    play.tick(4.0)
    play.join("a", slots=2)
    play.answer("a", 0, 2, "s")
    play.ask("s", items=5)
    play.ask("t", items=3)
    play.answer("a", 2)
    return play


def damage_state(state: State) -> None:
    state.consumers["s"].items[2].state = PENDING


def damage_loan(state: State) -> None:
    next(iter(state.workers["a"].held.values())).live = False


def damage_held(state: State) -> None:
    state.workers["a"].held.clear()


def damage_worker(state: State) -> None:
    del state.workers["a"]


def damage_generation(state: State) -> None:
    next(iter(state.workers["a"].held.values())).open.generation = 0


def damage_credits(state: State) -> None:
    state.workers["a"].credits = 1


def damage_slots(state: State) -> None:
    state.workers["a"].slots = 1


def damage_window(state: State) -> None:
    state.consumers["s"].open_bytes += 1


def damage_delivered(state: State) -> None:
    state.consumers["s"].delivered += 2


def damage_order(state: State) -> None:
    state.consumers["s"].delivered -= 1


def damage_lost(state: State) -> None:
    del state.consumers["s"].items[4]


def damage_backlog(state: State) -> None:
    state.backlog.pop_fresh()


def damage_units(state: State) -> None:
    state.workers["a"].units += 1


def damage_usable(state: State) -> None:
    state.usable += 1


def damage_suspect(state: State) -> None:
    state.workers["hung"].state = "active"


def damage_alarm(state: State) -> None:
    state.workers["a"].alarm_s = math.inf


def damage_offer(state: State) -> None:
    state.free.offer(state.workers["a"], state.now)


def damage_idle(state: State) -> None:
    state.workers["a"].credits = 3


def damage_totals(state: State) -> None:
    state.totals.submitted += 1


def damage_answered(state: State) -> None:
    state.totals.answered += 100


def damage_head(state: State) -> None:
    opened = state.consumers["s"].head()
    assert opened is not None
    opened.state = ANSWERED


def damage_alone(state: State) -> None:
    state.workers["a"].alone = True


def damage_clearing(state: State) -> None:
    state.clearing += 1


def damage_story(state: State) -> None:
    next(iter(state.workers["a"].held.values())).open.story = (w.Attempt("a", 1, 0.0, "no"),) * 50


def damage_twice(state: State) -> None:
    loan = next(iter(state.workers["a"].held.values()))
    loan.open.loans.append(loan)


DAMAGES = [each for name, each in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__.removeprefix("damage_"))
def test_check_notices(damage: Callable[[State], None]) -> None:
    """Damage of any kind is an AssertionError with a sentence."""
    play = busy()
    play.dispatcher.check()
    damage(play.dispatcher._state)
    with pytest.raises(AssertionError, match=r"\w+ .*\w"):
        play.dispatcher.check()

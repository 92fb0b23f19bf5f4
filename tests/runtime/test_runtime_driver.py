"""The product's driver on a virtual clock: whatever becomes of workers, students get what they asked."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from stillhouse.foundation.errors import FleetError
from stillhouse.runtime import work as w
from stillhouse.runtime.arrivals import FAILED_STARTS_MAX
from stillhouse.runtime.asker import Outcome, Payload, Question
from stillhouse.runtime.backend import Left, Report
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.scaling.policy import Policy
from stillhouse.runtime.simulated.weather import Kind, Weather

from .driven import TEACHER, Life, Plan, drawn

GOOD = Kind(0.05, load_s=1.0, facts=TEACHER)
STRANGER = Kind(0.05, load_s=1.0)
HOPELESS = Kind(0.05, load_s=1.0, last_words="no memory")


SEEDS_THAT_FAILED = [1497]
"""They stay for ever. 1497: a slowed worker, whose credits fell when it skipped an item, was lent it again."""


def kinds_of(life: Life) -> list[str]:
    return [notice.kind for notice in life.notices if notice.kind != "scaled"]


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_lives(first: int) -> None:
    """Every answer is right, in order and once; memory stays within the window, and nobody waits for ever."""
    for seed in range(first, first + 20):
        life = drawn(seed)
        life.run(5000.0)
        life.end()


@pytest.mark.parametrize("seed", SEEDS_THAT_FAILED)
def test_lives_that_failed_once(seed: int) -> None:
    """A seed that failed is played ever after."""
    life = drawn(seed)
    life.run(5000.0)
    life.end()


def test_lives_meet_everything() -> None:
    """Among forty lives everything happens that can, so that the others mean something."""
    lives = [drawn(seed) for seed in range(40)]
    for life in lives:
        life.run(5000.0)
        life.end()
    kinds = {kind for life in lives for kind in kinds_of(life)}
    assert kinds == {"joined", "refused", "leaving", "left", "suspect", "trusted"}
    for count in ("helped", "returned", "given_up"):
        assert sum(getattr(life, count) for life in lives) > 2, count


def test_a_worker_that_was_turned_away_and_hangs_is_killed() -> None:
    """It hung before it heard that it was turned away: patience ends, and its place is free."""
    weather = Weather(delay_s=0.5, freezes_per_s=1000.0, forever_share=1.0)
    settings = Settings(suspect_patience_s=7.0)
    life = Life([Plan("s", (1, 1))], [STRANGER], weather, settings=settings, patience_s=30.0)
    life.run(100.0)
    life.end()
    told = [notice for notice in life.notices if notice.worker == "w0"]
    assert [notice.kind for notice in told] == ["refused", "left"]
    assert 7.0 <= told[1].at_s - told[0].at_s <= 9.0 and "stayed" in told[1].text
    assert life.driver.failed_starts[0] == "it is another teacher"


def test_a_worker_that_never_loads_is_given_up() -> None:
    """Loading has an end, after which another worker is started."""
    life = Life([Plan("s", (1, 1))], [Kind(0.05, load_s=math.inf), GOOD], Weather(), policy=Policy(1, 1))
    life.run(700.0)
    life.end()
    assert [notice.kind for notice in life.notices if notice.worker == "w0"] == ["left"]
    assert 600.0 < life.clock() < 620.0 and life.helped == 0


def test_a_worker_without_a_machine_is_waited_for() -> None:
    """Hours without a machine are no failed start: students help themselves, and it is used once there is one."""
    late = Kind(0.05, place_s=7200.0, load_s=500.0, facts=TEACHER)
    life = Life([Plan("s", (1,) * 90, answer_s=100.0)], [late], Weather(), policy=Policy(1, 1), patience_s=3.0)
    driver = life.driver
    life.turn(0.0)
    asker = driver.asker("early")
    asker.ask(Question(1, 1, lambda facts: b"early 0 1", lambda: b"", lambda payload: ""))
    life.turn(1.0)
    assert (driver.workers_left, driver.workers_unplaced) == (0, 1), "it neither is ready nor loads"
    asker.close()
    life.run(9000.0)
    life.end()
    assert kinds_of(life) == ["joined"] and driver.failed_starts == []
    assert 70 <= life.helped <= 76 and 7700.0 < life.clock() < 7900.0


def test_a_worker_that_is_lost_before_it_had_a_machine_is_no_failed_start() -> None:
    """Four are lost with the place that was meant for them: nobody is to blame, and the fifth is waited for."""
    late = Kind(0.05, place_s=9.0, facts=TEACHER)
    life = Life([], [late], Weather(), policy=Policy(1, 1))
    driver = life.driver
    driver.asker("early").ask(Question(1, 1, lambda facts: b"early 0 1", lambda: b"", lambda payload: ""))
    for number in range(4):
        while not driver.workers_unplaced:
            life.turn(0.1)
        life.backend.crash(f"w{number}")
        life.turn(0.1)
    while not driver.workers_ready:
        life.turn(0.1)
    assert kinds_of(life) == ["left"] * 4 + ["joined"] and driver.failed_starts == []


def test_who_could_not_even_say_hello_is_told_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that its backend turned away counts among those that were refused, like one that the gate did."""
    life = Life([], [HOPELESS, GOOD], Weather(), policy=Policy(1, 1))
    poll = life.backend.poll

    def refusing(timeout_s: float) -> list[Report]:
        return [each._replace(refused=True) if isinstance(each, Left) else each for each in poll(timeout_s)]

    monkeypatch.setattr(life.backend, "poll", refusing)
    life.driver.asker("early").ask(Question(1, 1, lambda facts: b"early 0 1", lambda: b"", lambda payload: ""))
    while not life.driver.workers_ready:
        life.turn(0.1)
    assert kinds_of(life) == ["refused", "left", "joined"] and life.notices[0].text


def test_workers_that_can_not_load_are_not_waited_for() -> None:
    """Three in a row, and nobody is left although more are started; one that gets in makes it good."""
    life = Life([Plan("s", (1, 1))], [HOPELESS, STRANGER, HOPELESS, HOPELESS, GOOD], Weather(), policy=Policy(1, 1))
    driver = life.driver
    assert driver.workers_left == 1, "nobody has looked yet"
    asker = driver.asker("early")
    asker.ask(Question(1, 1, lambda facts: b"early 0 1", lambda: b"", lambda payload: ""))
    seen = set()
    while not driver.workers_ready:
        life.turn(0.1)
        seen.add((len(driver.failed_starts), driver.workers_left))
        assert life.clock() < 200.0
    assert {(0, 1), (1, 1), (2, 1), (3, 0), (4, 0)} <= seen and FAILED_STARTS_MAX == 3
    assert driver.failed_starts == [] and driver.workers_left == 1


def test_students_without_workers_answer_whatever_is_asked() -> None:
    """Two that wait, and no worker: each answers what is due, its own or the other's, and neither waits for ever."""
    plans = [Plan(f"s{number}", (1,) * 20, step_s=0.0) for number in range(2)]
    life = Life(plans, [HOPELESS], Weather(), patience_s=3.0)
    life.run(100.0)
    life.end()
    assert life.helped >= 40 and life.given_up == 0


def test_a_student_that_answers_slowly_is_not_blamed() -> None:
    """It takes much longer than any lease and is not suspected: what it does counts, and is done once."""
    life = Life([Plan("s", (1,) * 9, answer_s=500.0)], [HOPELESS], Weather(), patience_s=3.0)
    life.run(9 * 500.0 + 50.0)
    life.end()
    assert life.helped == 9 and life.given_up == 0
    assert "suspect" not in kinds_of(life)


def test_waiting_is_told_in_the_drivers_seconds() -> None:
    """What a student waited is measured by the clock that the driver has."""
    life = Life([], [GOOD], Weather())
    asker = life.driver.asker("s")
    asker.ask(Question(1, 1, lambda facts: b"s 0 1", lambda: b"", lambda payload: ""))
    while asker.take(1e-9) is None:
        life.turn(1.0)
    assert asker.record().waited_s == pytest.approx(life.clock()) and 1.0 < life.clock() < 2.0


@pytest.mark.parametrize(("most", "window_units"), [(None, 50), (8, 8), (80, 50), (1, 2)])
def test_a_window_is_no_larger_than_what_its_student_fills(most: int | None, window_units: int) -> None:
    """Water marks are shares of what a student ever has open: a bound of its own counts, and a question always fits."""
    life = Life([], [GOOD], Weather(), settings=Settings(window_bytes=100))
    asker = life.driver.asker("s")
    asker.ask(Question(2, 4, lambda facts: b"s 0 2", lambda: b"", lambda payload: "", most))
    life.turn(1.0)
    assert life.driver.view is not None
    assert [each.window_units for each in life.driver.view.consumers] == [window_units]


def test_what_takes_long_to_pack_is_packed_once_and_nobody_is_blamed() -> None:
    """Packing takes longer than a lease: no worker is suspected, and what is lent twice is packed once."""
    settings = Settings(window_bytes=30, lease_min_s=0.2)
    life = Life([Plan("s", (1,) * 60, step_s=0.0)], [GOOD], Weather(), 0, Policy(4, 4), settings, pack_s=3.0)
    life.run(4 + 60 * 3.0 + 4)
    life.end()
    assert kinds_of(life) == ["joined"] * 4 and life.pool.packed == 60
    busy = Life([Plan("s", (1,) * 60, step_s=0.0)], [GOOD], Weather(crashes_per_s=0.3), 0, Policy(4, 4), pack_s=0.01)
    busy.run(200.0)
    busy.end()
    assert busy.driver.status is not None and busy.driver.status.totals.reissued > 0 and busy.pool.packed == 60


def test_an_error_in_packing_ends_all_waiting() -> None:
    """What goes wrong in another thread is told where it is waited for."""
    life = Life([], [GOOD], Weather(), pack_s=0.1)

    def pack(facts: object) -> bytes:
        raise FleetError("no memory for it")

    life.driver.asker("s").ask(Question(1, 1, pack, lambda: b"", lambda payload: ""))

    def live() -> None:
        for _ in range(50):
            life.turn(0.1)

    with pytest.raises(FleetError, match="no memory"):
        live()


def test_what_can_be_no_answer_is_asked_again() -> None:
    """An answer that its question refuses is a failure of that loan, and the student never hears it."""
    life, told = Life([], [GOOD], Weather()), list[str]()

    def wrong(payload: Payload) -> str:
        told.append(bytes(payload).decode())
        return "too short" if len(told) < 3 else ""

    asker = life.driver.asker("s")
    asker.ask(Question(1, 1, lambda facts: b"s 0 1", lambda: b"", wrong))
    while (outcome := asker.take(1e-9)) is None:
        life.turn(1.0)
    assert isinstance(outcome, Outcome) and outcome.payload is not None
    assert len(told) == 3 and bytes(outcome.payload).decode() == told[-1]


def test_an_error_in_the_driver_ends_all_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told, and whoever asks after that."""
    life = Life([], [GOOD], Weather())

    def decide(*_: object) -> None:
        raise FleetError("no room for another worker")

    monkeypatch.setattr(Policy, "decide", decide)
    driver = life.driver
    early = driver.asker("early")
    early.ask(Question(1, 1, lambda facts: b"", lambda: b"", lambda payload: ""))
    driver.start()
    with pytest.raises(FleetError, match="no room"):
        early.take(60.0)
    with pytest.raises(FleetError, match="no room"):
        driver.asker("late").take(60.0)
    driver.close()


@pytest.mark.parametrize("error", [FleetError("no process left"), OSError(28, "No space left on device")])
def test_a_start_that_fails_is_a_failed_start(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """While the machine can start no worker the one that there is goes on; starts are tried ever more seldom."""
    life, tried = Life([], [GOOD], Weather(), policy=Policy(2, 2)), list[float]()
    driver, start = life.driver, life.backend.start

    def failing() -> str:
        tried.append(life.clock())
        if len(tried) == 1 or len(tried) > 6:
            return start()
        raise error

    monkeypatch.setattr(life.backend, "start", failing)
    asker = driver.asker("s")
    for _ in range(3000):
        asker.ask(Question(1, 1, lambda facts: b"s 0 1", lambda: b"", lambda payload: ""))
        while asker.take(1e-9) is None:
            life.turn(0.5)
        if driver.workers_ready == 2:
            break
    gaps = [after - before for before, after in pairwise(tried[1:])]
    assert len(tried) == 7 and gaps == sorted(gaps) and gaps[-1] > 30.0
    assert driver.failed_starts == [] and driver.workers_left == 2
    told = [each.text for each in life.notices if each.kind == "scaled"]
    assert sum(str(error) in each for each in told) == 5 and sum("1 started" in each for each in told) == 2


@pytest.mark.parametrize("pace", ["fast", -1.0, 0.0, 5e-324, 1e300, math.nan, math.inf, True, None, [1]])
def test_a_pace_that_can_be_none_is_not_known(pace: object) -> None:
    """A worker that talks nonsense about its pace is lent as one that says nothing of it."""
    life = Life(
        [Plan("s", (1,) * 20)], [Kind(0.05, load_s=1.0, facts={**TEACHER, "pace_s": pace}, tells_pace=False)], Weather()
    )
    joined = []
    handle = life.driver._dispatcher.handle

    def heard(event: object, now_s: float) -> object:
        joined.extend([event.pace_s] if isinstance(event, w.Joined) and "#" not in event.worker else [])
        return handle(event, now_s)

    life.driver._dispatcher.handle = heard
    life.run(50.0)
    life.end()
    assert joined == [None] and life.helped == 0


def test_time_in_which_the_run_was_stopped_is_nobodys_fault() -> None:
    """A run that was stopped for an hour while a worker loads does not end it for that."""
    life = Life([Plan("s", (1,))], [Kind(0.05, load_s=3700.0, facts=TEACHER)], Weather(), policy=Policy(1, 1))
    driver = life.driver
    driver.asker("early").ask(Question(1, 1, lambda facts: b"early 0 1", lambda: b"", lambda payload: ""))
    for _ in range(5):
        life.turn(1.0)
    life.clock.now_s += 3600.0
    for _ in range(300):
        life.turn(1.0)
    assert kinds_of(life) == ["joined"] and driver.failed_starts == []


def test_a_run_that_was_stopped_listens_before_it_suspects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that came while it was stopped are heard before their leases, which ended meanwhile, are looked at."""
    life = Life([], [GOOD], Weather(), policy=Policy(1, 1))
    asker = life.driver.asker("s")
    asker.ask(Question(1, 1, lambda facts: b"s 0 1", lambda: b"", lambda payload: ""))
    while not life.driver._dispatcher.status(life.clock()).workers or life.clock() < 1.0:
        life.turn(0.01)
    poll, stopped = life.backend.poll, [True]

    def interrupted(timeout_s: float) -> list[Report]:
        """The signal that ended the stop ended the waiting, too."""
        if stopped.pop() if stopped else False:
            life.clock.now_s += 600.0
            return []
        return poll(timeout_s)

    monkeypatch.setattr(life.backend, "poll", interrupted)
    while asker.take(1e-9) is None:
        life.turn(0.01)
    assert kinds_of(life) == ["joined"] and life.clock() > 600.0

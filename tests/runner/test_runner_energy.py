"""Energy of a run: what a phase under a meter tells, and what becomes of it when processes end on the way."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse.foundation.counters import Reading
from stillhouse.foundation.energy import EnergyMeter, EnergyRead
from stillhouse.foundation.errors import DivergedError, Interrupted
from stillhouse.foundation.events import Event, PhaseFinished, PhaseStarted, Warned
from stillhouse.runner.energy import TELL_EVERY_S, energy_use, metered


class Clock:
    """A clock that is set by hand, and a processor that uses 2 W of its seconds."""

    def __init__(self) -> None:
        self.s = 50.0

    def read(self) -> Reading:
        return Reading(2 * (self.s - 50.0), "a fake")

    def meter(self) -> EnergyMeter:
        return EnergyMeter(processor=self)


def test_a_phase_tells_what_it_used_as_it_goes() -> None:
    """The first event and later ones at a distance bring a reading with them, the end brings the whole."""
    clock, told = Clock(), list[Event]()
    with metered(clock.meter(), "student", told.append, lambda: clock.s) as tell:
        tell(PhaseStarted("student"))
        for s in (0.1, TELL_EVERY_S, TELL_EVERY_S + 0.1):
            clock.s = 50.0 + s
            tell(Warned("one"))
        clock.s = 50.0 + 20.0
    read = [each for each in told if isinstance(each, EnergyRead)]
    assert [each.joules for each in read] == [0.0, 2 * TELL_EVERY_S] and not any(each.last for each in read)
    assert told[-1] == PhaseFinished("student", 20.0, 40.0, "measured: a fake")
    assert len(told) == 7


@pytest.mark.parametrize("error", [Interrupted("Ctrl-C", 2), DivergedError("NaN")])
def test_a_phase_that_is_interrupted_tells_all_it_used(error: Exception) -> None:
    """A phase that was stopped is not finished, and leaves a last reading; one that failed leaves what it had told."""
    clock, told = Clock(), list[Event]()

    def work() -> None:
        with metered(clock.meter(), "student", told.append, lambda: clock.s) as tell:
            tell(PhaseStarted("student"))
            clock.s += 5.0
            raise error

    with pytest.raises(type(error)):
        work()
    assert not any(isinstance(each, PhaseFinished) for each in told)
    joules, last = (10.0, True) if isinstance(error, Interrupted) else (0.0, False)
    assert told[-1] == EnergyRead("student", joules, "measured: a fake", last)


def event(name: str, phase: str, joules: float | None = None, source: str = "measured: RAPL", **more: Any) -> Any:
    told = {} if name == "PhaseStarted" else {"joules": joules, "energy_source": source}
    return {"event": name, "phase": phase, **told, **more}


def whole(phase: str, joules: float | None, source: str = "measured: RAPL") -> list[dict[str, Any]]:
    return [event("PhaseStarted", phase), event("PhaseFinished", phase, joules, source)]


def test_energy_is_summed_over_phases() -> None:
    """A run's energy is that of its phases, each of which is told, in their order; the run has its source."""
    found = energy_use([[*whole("b", 2.0), {"event": "Warned"}, *whole("a", 3.25)]])
    assert found == {"joules": 5.2, "source": "measured: RAPL", "by_phase": {"b": 2.0, "a": 3.2}}
    nothing = {"joules": None, "source": "unavailable: nothing was trained", "by_phase": {}}
    assert energy_use([]) == energy_use([[{"event": "Warned"}]]) == nothing


def test_what_earlier_processes_read_counts() -> None:
    """A phase that was interrupted and resumed has the energy of all its processes; of each the last word counts."""
    first = [event("PhaseStarted", "a"), *(event("EnergyRead", "a", each, last=each == 7.0) for each in (1.0, 7.0))]
    found = energy_use([first, whole("a", 2.0)])
    assert found == {"joules": 9.0, "source": "measured: RAPL", "by_phase": {"a": 9.0}}
    again = [*whole("a", 1.0)[:1], *whole("a", 4.0)]  # its students were started twice: one process, one meter
    assert energy_use([again])["joules"] == 4.0


def test_what_a_killed_process_did_not_tell_is_said_to_be_missing() -> None:
    """Of a killed process the last reading counts, and the source says that it is the least; without any, no figure."""
    killed = [event("PhaseStarted", "a"), event("EnergyRead", "a", 6.0, last=False)]
    found = energy_use([killed, killed, whole("a", 2.0)])
    assert found["joules"] == found["by_phase"]["a"] == 14.0
    assert found["source"] == "measured: RAPL; at least, since 2 processes ended without a last reading"
    silent = energy_use([killed[:1], [*whole("a", 2.0), *whole("b", 1.0)]])
    assert silent["joules"] is None and silent["by_phase"] == {"a": None, "b": 1.0}
    assert silent["source"] == "unavailable: a process told nothing of a before it ended"


def test_a_sum_is_known_no_better_than_its_parts() -> None:
    """A phase without a figure leaves the run without one; an estimate in a sum makes it one, and both are named."""
    lost = energy_use([[*whole("a", 2.0), *whole("b", None, "unavailable: the counter was lost")]])
    assert lost["joules"] is None and lost["source"] == "unavailable: the counter was lost"
    assert lost["by_phase"] == {"a": 2.0, "b": None}
    mixed = energy_use([[*whole("a", 2.0), *whole("b", 3.0, "estimated: 5 W")]])
    assert (mixed["joules"], mixed["source"]) == (5.0, "estimated: 5 W; measured: RAPL")

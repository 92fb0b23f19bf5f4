"""Energy of a run: what a phase under a meter tells, and what becomes of it when processes end on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.counters import Reading
from stillhouse.foundation.energy import EnergyMeter, EnergyRead
from stillhouse.foundation.errors import DivergedError, Interrupted, StillhouseError
from stillhouse.foundation.events import CheckpointWritten, Event, PhaseFinished, PhaseStarted, Warned
from stillhouse.foundation.history import read_events
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.energy import TELL_EVERY_S, energy_use, gpus_in_use, meter_of, metered
from stillhouse.runner.run import resume, run

POWER = {"idle_w": 40, "busy_w": 95}
ACCUMULATES = {"model": {"arch": "mlp"}, "train": {"batch_size": 100, "accumulate": 2}}


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


@pytest.mark.parametrize("error", [Interrupted("Ctrl-C", 2), DivergedError("NaN"), MemoryError()])
def test_a_phase_that_is_interrupted_tells_all_it_used(error: Exception) -> None:
    """One that was stopped, or diverged, is not finished, and leaves a last reading; a crash leaves what was told."""
    clock, told = Clock(), list[Event]()

    def work() -> None:
        with metered(clock.meter(), "student", told.append, lambda: clock.s) as tell:
            tell(PhaseStarted("student"))
            clock.s += 5.0
            raise error

    with pytest.raises(type(error)):
        work()
    assert not any(isinstance(each, PhaseFinished) for each in told)
    joules, last = (10.0, True) if isinstance(error, StillhouseError) else (0.0, False)
    assert told[-1] == EnergyRead("student", joules, "measured: a fake", last)


@pytest.mark.parametrize(
    ("sections", "numbers"),
    [
        ({}, []),
        ({"compute": {"device": "cuda:1"}}, [1]),
        ({"compute": {"device": "cuda"}, "fleet": {"workers": 2}}, [0]),
        ({"compute": {"device": "cuda:7"}}, []),
        ({"fleet": {"workers": [1, 2], "device": "auto"}}, [0]),
        ({"fleet": {"workers": 2, "device": "cuda:2"}}, [2]),
        ({"fleet": {"workers": 2, "device": "cpu"}}, []),
        ({"fleet": {"workers": 2, "device": "cuda", "backend": "ray"}}, []),
        ({"fleet": {"workers": 2, "device": "cuda"}, "objective": {"cross_entropy": 1, "kd": None}}, []),
        ({"fleet": {"students": [1, 2]}, "compute": {"device": "cuda"}, "student": ACCUMULATES}, [0, 1]),
        ({"fleet": {"students": 2}, "student": ACCUMULATES}, []),
    ],
)
def test_which_gpus_are_in_use(sections: dict[str, Any], numbers: list[int], tiny: Callable[..., Recipe]) -> None:
    """Those of the run's process, its students and the workers that it starts on this machine, no others."""
    assert gpus_in_use(tiny(**sections), 3) == numbers


def test_other_machines_are_said_to_be_missing(tiny: Callable[..., Recipe]) -> None:
    """A run with workers on a Ray cluster has a figure of this machine alone, and says so."""
    recipe = tiny(compute={"device": "cpu", "threads": 1, "power": POWER}, fleet={"workers": 1, "backend": "ray"})
    assert meter_of(recipe).read().source.endswith("; without other machines of the Ray cluster")


def test_a_whole_run_tells_its_energy(tiny: Callable[..., Recipe], not_drawn: None, tmp_path: Path) -> None:
    """Every phase has its joules, those of a process that ended on the way included, and the figure says what it is."""
    recipe, folder = tiny(compute={"device": "cpu", "threads": 1, "power": POWER}), tmp_path / "run"

    def stop(event: Event) -> None:
        if isinstance(event, CheckpointWritten) and event.phase == "student":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, folder, [stop])
    energy = resume(folder)["energy"]
    assert list(energy["by_phase"]) == ["teacher", "student", "control-0"]
    assert all(joules > 0 for joules in energy["by_phase"].values())
    assert energy["joules"] == pytest.approx(sum(energy["by_phase"].values()), abs=0.2)
    assert energy["source"].startswith(("measured: ", "estimated: 40 W at rest and 95 W"))
    assert energy["source"].endswith("at least, since 1 process ended without a last reading")
    told = [each for each in read_events(folder / "events.jsonl") if each["event"] == "PhaseFinished"]
    assert energy["by_phase"]["teacher"] == round(told[0]["joules"], 1)


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


def test_what_a_phase_holds_is_not_counted_twice() -> None:
    """Trainings that are told while another phase's meter counts are part of that, however they end."""
    inner = [*whole("one", 1.0), event("PhaseStarted", "other")]  # which diverged in another process
    found = energy_use([[event("PhaseStarted", "all"), *inner, event("PhaseFinished", "all", 5.0), *whole("b", 2.0)]])
    assert found["by_phase"] == {"all": 5.0, "b": 2.0} and found["joules"] == 7.0
    stopped = [event("PhaseStarted", "all"), *inner, event("EnergyRead", "all", 3.0, last=True)]
    assert energy_use([stopped])["by_phase"] == {"all": 3.0}


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

"""Does harm to a run's workers, and to the run: what, to whom and when follows from a seed and from what it meets.

A frozen worker thaws by itself some seconds later, a slowed one stands still half of the time. The run is killed only
when it has got further since it was last taken up; otherwise it might never end.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from heapq import heappop, heappush
from pathlib import Path

from stillhouse.foundation.history import read_events
from stillhouse.runner.grounds import Ground
from stillhouse.runner.prey import Prey
from stillhouse.runtime.simulated.weather import Dice

DOINGS = ("kill", "freeze", "slow", "join", "drain", "kill the run")
_DRAWN = ("kill",) * 3 + ("freeze",) * 3 + ("slow",) * 2 + ("join",) * 2 + ("drain",) * 2 + ("kill the run",) * 2
_FREEZE_MAX_S = 8.0
_SLOW_S = 4.0
_BEAT_S = 0.2
# Most harm is done to those at work: a worker that loads holds nothing.
_READY_SHARE = 0.75
_ADVANCES = ("CheckpointWritten", "PhaseFinished")


class Disturber:
    """Harms one run.

    Attributes:
        done: how often it did what.
        lasts_s: seconds since it did something first.

    Args:
        folder: of the run; what is done is written into its ``chaos.jsonl``.
        ground: where its workers live.
        every_s: between two disturbances, on average.
        tell: is told each, for a person.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        every_s: float,
        ground: Ground,
        tell: Callable[[str], None],
    ) -> None:
        self.done = dict.fromkeys(DOINGS, 0)
        self._folder, self._every_s, self._ground, self._tell = folder, every_s, ground, tell
        self._dice = Dice(seed, "chaos")
        self._begun_s = self._next_s = time.monotonic()
        self._first_s: float | None = None
        self._prey: dict[int, Prey] = {}
        self._due: list[tuple[float, int, Prey, signal.Signals]] = []
        self._advances = self._planned = 0

    def look(self, run: subprocess.Popen[bytes]) -> None:
        """Do what is due. ``run`` is a child that nobody has waited for."""
        self.rest()
        now_s = time.monotonic()
        if now_s < self._next_s or not (self._folder / "recipe.yaml").exists():
            return
        self._next_s = now_s + self._every_s * (0.25 + 1.5 * self._dice.uniform())
        self._gather(run)
        self._disturb(run)

    @property
    def lasts_s(self) -> float:
        """See above."""
        return 0.0 if self._first_s is None else time.monotonic() - self._first_s

    def rest(self) -> None:
        """Do what was begun to its end: who is frozen thaws."""
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, prey, number = heappop(self._due)
            prey.signal(number)

    def taken_up(self) -> None:
        """The run is a new process."""
        self._advances = self._seen()

    def close(self) -> None:
        """Undo what is left to undo: nobody stays frozen."""
        for prey in self._prey.values():
            if prey.frozen:
                prey.signal(signal.SIGCONT)
            prey.close()
        self._prey.clear()

    def _gather(self, run: subprocess.Popen[bytes]) -> None:
        """Whom there is to harm."""
        for pid in [pid for pid, prey in self._prey.items() if not prey.alive]:
            self._prey.pop(pid).close()
        for prey in self._ground.prey(run):
            if prey.pid in self._prey:
                prey.close()
            else:
                self._prey[prey.pid] = prey

    def _disturb(self, run: subprocess.Popen[bytes]) -> None:
        do = _DRAWN[self._dice.between(0, len(_DRAWN) - 1)]
        if do == "kill the run":
            if self._seen() > self._advances:
                run.kill()
                self._note(do, run.pid, "the run")
        elif do == "join":
            if (prey := self._ground.join()) is not None:
                self._note(do, prey.pid, prey.title)
                prey.close()
        else:
            awake = [self._prey[pid] for pid in sorted(self._prey) if not self._prey[pid].frozen]
            names = self._names()
            ready = [prey for prey in awake if prey.pid in names]
            met = ready if ready and self._dice.chance(_READY_SHARE) else awake
            if met:
                prey = met[self._dice.between(0, len(met) - 1)]
                self._harm(do, prey, names.get(prey.pid, prey.title))

    def _harm(self, do: str, prey: Prey, name: str) -> None:
        more = ""
        if do == "kill":
            prey.signal(signal.SIGKILL)
        elif do == "drain":
            prey.signal(signal.SIGTERM)
        elif do == "freeze":
            seconds = _FREEZE_MAX_S * self._dice.uniform()
            prey.signal(signal.SIGSTOP)
            self._plan(seconds, prey, signal.SIGCONT)
            more = f" for {seconds:.1f} s"
        else:
            for beat in range(round(_SLOW_S / _BEAT_S)):
                self._plan(beat * _BEAT_S, prey, signal.SIGCONT if beat % 2 else signal.SIGSTOP)
            more = f" for {_SLOW_S:.0f} s"
        self._note(do, prey.pid, name + more)

    def _plan(self, seconds: float, prey: Prey, number: signal.Signals) -> None:
        self._planned += 1
        heappush(self._due, (time.monotonic() + seconds, self._planned, prey, number))

    def _seen(self) -> int:
        """How far the run is, in steps that a kill does not take back."""
        return sum(event["event"] in _ADVANCES for event in read_events(self._folder / "events.jsonl"))

    def _names(self) -> dict[int, str]:
        """What the run calls the workers that were let in, as far as it has said so."""
        told = [each for each in read_events(self._folder / "events.jsonl") if each["event"] == "FleetChanged"]
        return {each["facts"]["pid"]: each["worker"] for each in told if each["kind"] == "joined"}

    def _note(self, do: str, pid: int, whom: str) -> None:
        self.done[do] += 1
        now_s = time.monotonic()
        self._first_s = now_s if self._first_s is None else self._first_s
        after_s = round(now_s - self._begun_s, 2)
        with (self._folder / "chaos.jsonl").open("a") as file:
            file.write(json.dumps({"after_s": after_s, "do": do, "whom": whom, "pid": pid}) + "\n")
        self._tell(f"{after_s:7.1f} s  {do:<12}  {whom} (process {pid})")

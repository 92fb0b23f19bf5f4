"""A search, as lines in the terminal: every rung that a trial reaches, every trial that ends early, the finalists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stillhouse.foundation import search_events as s


class SearchLines:
    """Remembers the best trial so far, to say it along.

    Args:
        before: events of the run, told by earlier processes.
    """

    def __init__(self, before: Sequence[Mapping[str, Any]] = ()) -> None:
        self._epochs, self._best, self._trial = 0, -1.0, -1
        for each in before:
            if each["event"] == s.TrialReached.__name__:
                self._remember(each["trial"], each["epochs"], each["members"])

    def line(self, event: object) -> str | None:
        """What to say of an event; None for nothing."""
        if isinstance(event, s.TrialReached):
            return self._reached(event)
        if isinstance(event, s.TrialEnded):
            return f"trial {event.trial}: {event.why}"
        if isinstance(event, s.TrialWorkerLost):
            what = f"{'the finalist of ' if event.final else ''}trial {event.trial}"
            goes_on = f"; {what} goes on from its checkpoint" if event.trial is not None else ""
            return f"{event.worker} is lost: {event.why}{goes_on}"
        if isinstance(event, s.FinalistTrained):
            family = f"finalist {event.member} of the family of trial {event.trial}"
            return f"{family}: validation accuracy {100 * event.accuracy:.2f} %, {event.params:,} parameters"
        if isinstance(event, s.StudentFound):
            return (
                f"the student is finalist {event.member} of the family of trial {event.trial}; best.yaml makes it anew"
            )
        return None

    def _reached(self, event: s.TrialReached) -> str:
        value = self._remember(event.trial, event.epochs, event.members)
        several = f" (mean of {len(event.members)} members)" if len(event.members) > 1 else ""
        epochs = f"{event.epochs} epoch{'s' if event.epochs > 1 else ''}"
        best = f"best so far: {100 * self._best:.1f} % after {self._epochs}, trial {self._trial}"
        return f"trial {event.trial}: {100 * value:.1f} % after {epochs}{several}; {best}"

    def _remember(self, trial: int, epochs: int, members: Sequence[float]) -> float:
        """The mean of its members."""
        value = sum(members) / len(members)
        if (epochs, value) > (self._epochs, self._best):
            self._epochs, self._best, self._trial = epochs, value, trial
        return value

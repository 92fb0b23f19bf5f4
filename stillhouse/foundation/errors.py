"""The errors a person may meet, each saying what to do about it.

    StillhouseError                 exit code 1: the run could not go on
    |-- UserError                   exit code 2: mend the input and try again
    |   |-- RecipeError             a recipe that can't be read or makes no sense
    |   |-- DataError               a file or sample of the data set
    |   |-- ModelError              a model, its weights, its shapes
    |   `-- RunDirError             a run directory that is in use, foreign or changed
    |-- StorageError                a disk that is full or refuses to write
    |-- DivergedError               a loss that became NaN, infinite or exploded
    |-- CorruptError                a file whose checksum does not match
    |-- FleetError                  workers that can't be started, reached or understood
    `-- Interrupted                 stopped by a signal after a checkpoint; exit code 128 + signal

The message is the whole story; the command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StillhouseError(Exception):
    """Base of all errors that Stillhouse raises on purpose."""

    exit_code = 1


class UserError(StillhouseError):
    """The input is wrong; the message names the key, file or sample and the mend."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe that can't be read, or whose values make no sense together."""


class DataError(UserError):
    """A data file or sample that can't be used."""


class ModelError(UserError):
    """A model that can't be built, loaded or joined with the data."""


class RunDirError(UserError):
    """A run directory that is in use, is not one, or no longer fits its recipe."""


class StorageError(StillhouseError):
    """Writing failed (a full disk, a quota); what was written before is untouched."""


class DivergedError(StillhouseError):
    """Training met a loss that is not finite or exploded."""


class CorruptError(StillhouseError):
    """A file does not match its own checksum."""


class FleetError(StillhouseError):
    """A worker can't be started, a run can't be reached, or one of them speaks what the other does not understand."""


class Interrupted(StillhouseError):
    """A signal asked the run to stop; a checkpoint was written first.

    Args:
        signal_number: the signal received; the exit code is 128 plus it (130 for Ctrl-C).
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known one, or the whole list."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known here: {', '.join(names)}" if names else "nothing is known here"

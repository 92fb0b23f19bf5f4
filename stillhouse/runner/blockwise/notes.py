"""What a blockwise run measured, kept in its folder ``blocks``: what is there is not measured again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from stillhouse.foundation.errors import RunDirError
from stillhouse.foundation.files import read_json, write_json

_KEYS: Final = {
    "costs": {"blocks", "options", "whole"},
    "choice": {"alone", "candidates", "diverged", "fronts", "limits"},
    "stages": {"assembled"},
}


class Notes:
    """``costs.json``, ``choice.json`` and ``stages.json``.

    Args:
        folder: theirs.
        warn: told of a damaged one.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn

    def read(self, name: str) -> dict[str, Any] | None:
        """What was noted; None where nothing was, or it was damaged since."""
        path = self._folder / f"{name}.json"
        if not path.exists():
            return None
        try:
            found = read_json(path)
        except RunDirError:
            found = None
        if isinstance(found, dict) and found.keys() >= _KEYS[name]:
            return found
        self._warn(f"{path} was damaged: what it held is measured again")
        path.unlink()
        return None

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Note something."""
        write_json(self._folder / f"{name}.json", values)

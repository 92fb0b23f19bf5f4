"""Where the workers of a run come in."""

from __future__ import annotations

import json
from pathlib import Path

from stillhouse.foundation.errors import RunDirError

DOOR = "fleet.json"


def door_of(path: Path) -> str:
    """The address at which a run's workers join: of a run directory, or ``path`` itself if it is a socket.

    Raises:
        RunDirError: there is none.
    """
    if path.is_socket():
        return str(path)
    if not (path / "recipe.yaml").exists():
        raise RunDirError(f"{path} is neither a run directory nor the socket of one")
    try:
        return str(json.loads((path / DOOR).read_text())["address"])
    except FileNotFoundError as error:
        raise RunDirError(
            f"{path} has no fleet to join now: it is not running, was begun without --workers, or asks no teacher "
            "(it trains one, or all answers are stored)"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirError(f"{path / DOOR} is damaged ({error}): stop the run and resume it") from error

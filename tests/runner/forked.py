"""Takes a run to its end through as many SIGKILLs as fit: ``python forked.py RECIPE.yaml FOLDER HOW``.

Every process of the run is a fork of this one, which has imported everything and computed nothing (so that there are
no threads to lose): a kill costs a tenth of a second instead of three. HOW says at which point of a checkpoint a
process kills itself. Prints the kills and the result's digest of the student as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stillhouse.foundation import files
from stillhouse.foundation.events import CheckpointWritten, Event
from stillhouse.recipe.load import load
from stillhouse.runner import phases, run

SLOW_IMPORTS = ("torch._dynamo", "matplotlib.figure", "jinja2")
LAST_STRETCH = ("save_student", "measure", "write_json", "write_report")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forked(action: Callable[[], object]) -> int:
    """The exit code of a forked child that does something; minus the signal that killed it."""
    process_id = os.fork()
    if process_id == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])


def dying(module: Any, name: str, before: bool, wanted: Callable[..., bool] = lambda *args: True, nth: int = 1) -> None:
    """From now on ``module.name`` kills this process at its nth wanted call, before or after its work."""
    original, calls = getattr(module, name), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += wanted(*args)
        if calls == nth and before:
            die()
        result = original(*args, **kwargs)
        if calls == nth:
            die()
        return result

    setattr(module, name, deadly)


def take_up(folder: Path, recipe: Path, listener: Callable[[Event], None] = lambda event: None) -> None:
    if (folder / "recipe.yaml").exists():
        run.resume(folder, [listener])
    else:
        run.run(load(recipe), folder, [listener])


def one_more_step(folder: Path, recipe: Path, how: str) -> None:
    """Work on the run until a process of its kind dies, a step further than the one before."""

    def listener(event: Event) -> None:
        if how == "told" and isinstance(event, CheckpointWritten):
            with (folder / "events.jsonl").open("ab") as log:
                log.write(b'{"time": 12.3, "event": "Progr')
            die()

    def checkpoint(source: str, target: Path) -> bool:
        return str(target).endswith(".ckpt")

    if how == "half written":
        dying(files.os, "replace", before=True, wanted=checkpoint, nth=2)
    elif how == "written":
        dying(files.os, "replace", before=False, wanted=checkpoint)
    elif how == "weights written":
        dying(phases, "write_atomic", before=False, wanted=lambda path, data: path.suffix == ".safetensors")
    dying(run, "save_student", before=True)
    take_up(folder, recipe, listener)


def last_stretch(folder: Path, recipe: Path, name: str, before: bool) -> None:
    dying(run, name, before)
    take_up(folder, recipe)


def main(recipe: Path, folder: Path, how: str) -> None:
    kills = 0
    torch.set_num_threads(1)
    for module in SLOW_IMPORTS:
        importlib.import_module(module)
    while len(list((folder / "weights").glob("*.safetensors"))) < 3:
        assert forked(lambda: one_more_step(folder, recipe, how)) == -signal.SIGKILL
        kills += 1
    for name in LAST_STRETCH:
        for before in (True, False):
            code = forked(lambda name=name, before=before: last_stretch(folder, recipe, name, before))  # type: ignore[misc]
            assert code == -signal.SIGKILL, (name, before, code)
            kills += 1
    assert forked(lambda: take_up(folder, recipe)) == 0
    result = json.loads((folder / "result.json").read_text())
    leftovers = [str(path) for path in folder.rglob(".*.part")] + [str(path) for path in folder.rglob("*.ckpt")]
    print(json.dumps({"kills": kills, "digest": result["digests"]["student_weights"], "leftovers": leftovers}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

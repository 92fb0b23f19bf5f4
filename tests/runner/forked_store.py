"""Real processes around one label store: ``python forked_store.py HOW RECIPE.yaml FOLDER SEED``.

As in ``forked.py`` every process of a run is a fork of this one, which has imported everything and computed nothing.
HOW: ``kill`` a run at random moments and take it up again; ``teach`` the same of its teaching, then the students;
``damage`` rows files, or ``delete`` the folder of stores, while the run goes on; ``together``: three runs at once.
Prints what happened as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forked import SLOW_IMPORTS, take_up

from stillhouse.recipe.load import load
from stillhouse.runner import run
from stillhouse.runner.rundir import RunDir

KILLS = 12


class Child:
    """A fork that does something."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.process_id = os.fork()
        self.code: int | None = None
        if self.process_id == 0:
            try:
                action()
            except BaseException:
                traceback.print_exc()
                os._exit(99)
            os._exit(0)

    def ended(self) -> bool:
        if self.code is None:
            process_id, status = os.waitpid(self.process_id, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if process_id else None
        return self.code is not None

    def wait(self) -> int:
        while not self.ended():
            time.sleep(0.002)
        assert self.code is not None
        return self.code

    def kill(self) -> bool:
        """Whether it was still alive."""
        if not self.ended():
            os.kill(self.process_id, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


def killed(action: Callable[[], object], folder: Path, labels: Path, chance: random.Random) -> int:
    """Kill the action ``KILLS`` times, mostly some moments after it got a little further; then let it end."""

    def reached() -> tuple[int, int]:
        blocks = 0
        for at, _, names in os.walk(labels):  # which passes over folders that go away meanwhile
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    blocks += os.stat(Path(at, name)).st_blocks if name.endswith(".rows") else 0
        log = folder / "events.jsonl"
        return blocks, log.read_bytes().count(b'"CheckpointWritten"') if log.exists() else 0

    kills = 0
    for number in range(KILLS):
        child, before = Child(action), reached()
        while number % 3 and not child.ended() and reached() == before:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)
        if not child.kill():
            break
        kills += 1
    assert Child(action).wait() == 0
    return kills


def hurt(labels: Path, chance: random.Random) -> None:
    """Flip some bits of a rows file, or now and then cut it off or write nonsense into it."""
    files = sorted(labels.rglob("*.rows"))
    if not files:
        return
    path = chance.choice(files)
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for _ in range(20):
            at = chance.randrange(max(size, 1))
            file.seek(at)
            byte = file.read(1) or b"\0"
            file.seek(at)
            file.write(bytes([byte[0] ^ 1 << chance.randrange(8)]))
        if chance.random() < 0.1:
            file.truncate(chance.randrange(max(size, 1)))


def disturbed(folder: Path, recipe: Path, labels: Path, how: str, chance: random.Random) -> int:
    """Disturb the store while a run goes on; how often."""
    child, done = Child(lambda: take_up(folder, recipe)), 0
    while not child.ended():
        if how == "damage":
            hurt(labels, chance)
            done += 1
        elif done < 3 and any(labels.rglob("*.rows")):
            shutil.rmtree(labels, ignore_errors=True)
            done += 1
        time.sleep(0.01 + 0.03 * chance.random())
    assert child.code == 0
    return done


def teach(folder: Path, recipe: Path) -> None:
    if not (folder / "recipe.yaml").exists():
        with RunDir(folder).begun(load(recipe)):
            run.teach(folder)
    else:
        run.teach(folder)


def main(how: str, recipe: Path, folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    for module in SLOW_IMPORTS:
        importlib.import_module(module)
    labels, chance = Path(load(recipe).store.path), random.Random(seed)
    folders, found = [folder], {}
    if how == "kill":
        found["times"] = killed(lambda: take_up(folder, recipe), folder, labels, chance)
    elif how == "teach":
        found["times"] = killed(lambda: teach(folder, recipe), folder, labels, chance)
        assert Child(lambda: run.resume(folder)).wait() == 0
    elif how == "together":
        folders = [folder.with_name(f"{folder.name}-{number}") for number in range(3)]
        children = [Child(lambda each=each: take_up(each, recipe)) for each in folders]  # type: ignore[misc]
        assert [each.wait() for each in children] == [0, 0, 0]
    else:
        found["times"] = disturbed(folder, recipe, labels, how, chance)
    results: list[Any] = [json.loads((each / "result.json").read_text()) for each in folders]
    found["digests"] = [each["digests"]["student_weights"] for each in results]
    print(json.dumps(found | {"store": results[0]["store"], "warnings": results[0]["warnings"]}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))

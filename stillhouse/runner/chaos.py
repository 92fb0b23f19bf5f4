"""Does elasticity change a student? A run undisturbed, the same run disturbed all the time, and their weights compared.

Both are processes of their own, so that killing them is killing them. The disturbed run takes over all that the
undisturbed one settled (engine, threads), has a fleet, and keeps its answers in a store of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.foundation.errors import RecipeError, RunDirError, StillhouseError, UserError
from stillhouse.foundation.files import read_json, write_atomic
from stillhouse.recipe.load import dump, validate
from stillhouse.recipe.recipe import Recipe, as_dict
from stillhouse.runner.disturber import Disturber
from stillhouse.runner.grounds import Ground, Machine, RayCluster
from stillhouse.runner.joining import check_ray_installed
from stillhouse.runner.prey import check_possible
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.signals import Signals, listening

_WORKERS = (2, 3)
_CHECKPOINT_S = 1.0
_LOOK_S = 0.02
_LAST_LINES = 15


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        undisturbed, disturbed: digests of the students' weights.
        done: how often what was done.
        fleet: what the disturbed run counted of its workers.
    """

    undisturbed: str
    disturbed: str
    done: Mapping[str, int]
    fleet: Mapping[str, int]

    @property
    def identical(self) -> bool:
        """Whether the two students are the same to the last bit."""
        return self.undisturbed == self.disturbed


@dataclass(frozen=True)
class Chaos:
    """How to disturb.

    Attributes:
        seed: decides, together with what is met, who gets what and when.
        every_s: between two disturbances, on average.
        minutes: so long after the first disturbance the run is left in peace, and goes on to its end.
    """

    seed: int
    every_s: float
    minutes: float


def disturb(recipe: Recipe, folder: Path, chaos: Chaos, reference: Path | None, tell: Callable[[str], None]) -> Outcome:
    """Run a recipe undisturbed and disturbed, under ``folder``.

    Args:
        reference: a finished run of the same recipe, in place of the undisturbed one.
        tell: is told what happens, for a person.

    Raises:
        UserError: no Linux, a folder in use, a reference of another recipe.
        StillhouseError: a run failed by itself; says how.
        Interrupted: a signal came; all that was started is ended.
    """
    check_possible()
    if not recipe.objective.asks:
        raise RecipeError("the objective asks nothing of a teacher: there is nobody to disturb; give objective.kd")
    if recipe.fleet.engine == "own":
        raise RecipeError(
            "fleet.engine: own: results depend on who answered what, so that identical weights can't be promised: say "
            "--set fleet.engine=same"
        )
    if recipe.fleet.backend == "ray":
        check_ray_installed()
    if folder.exists() and any(folder.iterdir()):
        raise RunDirError(f"{folder} is not empty: choose another folder with --out")
    if reference is None:
        reference = folder / "undisturbed"
        tell(f"undisturbed: {reference}")
        with listening() as signals:
            _undisturbed(recipe, folder, reference, signals)
    other = RunDir(reference)
    settled = other.settled(recipe)
    other.check_unchanged(settled)
    before = read_json(other.result)["digests"]["student_weights"]
    place = folder / "run"
    tell(f"disturbed:   {place}, seed {chaos.seed}")
    with listening() as signals:
        done = _disturbed(_elastic(settled, folder), folder, place, chaos, tell, signals)
    result = read_json(place / "result.json")
    return Outcome(before, result["digests"]["student_weights"], done, result.get("fleet") or {})


def _undisturbed(recipe: Recipe, folder: Path, place: Path, signals: Signals) -> None:
    plain = _changed(recipe, {"fleet": {"workers": 0}, "store": {"path": str(folder.resolve() / "labels-undisturbed")}})
    path = folder / "undisturbed.yaml"
    write_atomic(path, dump(plain))
    with (folder / "undisturbed.log").open("ab") as log:
        run = subprocess.Popen(_command("run", path, "--out", place), stdout=log, stderr=log)
        try:
            while run.poll() is None:
                signals.check("before anything was disturbed")
                time.sleep(_LOOK_S)
        finally:
            run.terminate()
            run.wait()
    if run.returncode:
        told = _tail(folder / "undisturbed.log")
        kind = UserError if run.returncode == UserError.exit_code else StillhouseError
        raise kind(f"the undisturbed run ended with exit code {run.returncode}:\n{told}")


def _elastic(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with a fleet that stays faithful whatever happens, and checkpoints often enough to get on."""
    threads = recipe.compute.threads if recipe.fleet.threads == "auto" else recipe.fleet.threads
    workers = recipe.fleet.workers if recipe.fleet.workers_range[1] else _WORKERS
    return _changed(
        recipe,
        {
            "fleet": {"workers": workers, "threads": threads, "without_teachers": "inline"},
            "store": {"path": str(folder.resolve() / "labels")},
            "checkpoint": {"every_s": min(recipe.checkpoint.every_s, _CHECKPOINT_S)},
        },
    )


def _changed(recipe: Recipe, sections: Mapping[str, Mapping[str, Any]]) -> Recipe:
    values: dict[str, Any] = as_dict(recipe)
    return validate(values | {name: values[name] | dict(section) for name, section in sections.items()})


def _disturbed(
    recipe: Recipe, folder: Path, place: Path, chaos: Chaos, tell: Callable[[str], None], signals: Signals
) -> dict[str, int]:
    """Take the run to its end, by as many processes as it needs; how often what was done."""
    path = folder / "disturbed.yaml"
    write_atomic(path, dump(recipe))
    log_path = folder / "disturbed.log"
    with log_path.open("ab") as log, ExitStack() as ends:

        def start(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
            # A group of its own: Ctrl-C is heard here alone, and ends them all.
            more = os.environ | environment
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0, env=more
            )

        ground: Ground = (
            RayCluster(place, start, recipe.fleet, log_path, lambda: signals.check("while a Ray cluster was started"))
            if recipe.fleet.backend == "ray"
            else Machine(place, _command("join", place), start)
        )
        ends.callback(ground.close)
        disturber = Disturber(place, chaos.seed, chaos.every_s, ground, tell)
        run, resumed = start(_command("run", path, "--out", place), ground.environment), 0
        try:
            while (code := run.poll()) != 0:
                signals.check("while the run was disturbed; what was started is ended")
                if code is None and disturber.lasts_s < 60.0 * chaos.minutes:
                    disturber.look(run)
                elif code is None:
                    disturber.rest()
                elif code == -signal.SIGKILL and disturber.done["kill the run"] > resumed:
                    tell(f"           resume        {place}")
                    disturber.taken_up()
                    resumed += 1
                    run = start(_command("resume", place), ground.environment)
                else:
                    raise StillhouseError(f"the disturbed run ended with exit code {code}:\n{_tail(log_path)}")
                time.sleep(_LOOK_S)
        finally:
            run.kill()
            run.wait()
            disturber.close()
    return disturber.done


def _command(*words: object) -> list[str]:
    return [sys.executable, "-P", "-c", "from stillhouse.cli.main import main; main()", *map(str, words)]


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-_LAST_LINES:])

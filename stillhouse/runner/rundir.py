"""The run directory: the one hand-over between a run and everything that reads it.

recipe.yaml        the whole recipe, ``auto`` resolved; a run is there from the moment this file is
run.json           what the run began with: the same recipe, versions, digests of its inputs
events.jsonl       what happened
checkpoints/PHASE/ while a phase trains
weights/PHASE.safetensors   when it is done
student.safetensors, student.json, student.onnx   the student, ready to use
best.yaml          once a search has found its student: the recipe that makes that
result.json        the answer, for machines;  report.html  for people
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stillhouse.foundation.errors import RecipeError, RunDirError, StorageError, UserError
from stillhouse.foundation.files import folder_lock, read_json, remove_leftovers, write_atomic, write_json
from stillhouse.foundation.history import read_events
from stillhouse.recipe.engines import AUTO
from stillhouse.recipe.load import differences, dump, load, validate
from stillhouse.recipe.recipe import Recipe, as_dict

_FORMAT = 1


class RunDir:
    """Paths and rules of one run directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.manifest = path / "run.json"
        self.events = path / "events.jsonl"
        self.result = path / "result.json"
        self.report = path / "report.html"
        self.best = path / "best.yaml"

    def checkpoints(self, phase: str) -> Path:
        """Folder of a phase's checkpoints."""
        return self.path / "checkpoints" / phase

    def weights(self, phase: str) -> Path:
        """A phase's final weights; there as soon as the phase is done."""
        return self.path / "weights" / f"{phase}.safetensors"

    def has_run(self) -> bool:
        """Whether a run was begun here."""
        return self.recipe.exists()

    def check_unfinished(self) -> None:
        """Refuse a run that asks nobody any more.

        Raises:
            RunDirError: it is finished.
        """
        if self.result.exists():
            raise RunDirError(f"{self.path} is finished: it has no workers any more, and wants none")

    def half_taught(self) -> bool:
        """Whether the last process that worked here was to teach only, and did not come to its end."""
        half = False
        for event in read_events(self.events):
            if event["event"] == "RunStarted":
                half = bool(event.get("only_teach"))
            elif event["event"] == "PhaseFinished" and event["phase"] == "teach":
                half = False
        return half

    def begin(self, recipe: Recipe) -> None:
        """Make this the directory of a new run; call it under :func:`held`.

        Raises:
            RunDirError: see :func:`check_free`.
        """
        self.check_free()
        write_atomic(self.recipe, dump(recipe))

    @contextlib.contextmanager
    def begun(self, recipe: Recipe) -> Iterator[None]:
        """Begin a run here; when wrong input ends it before any training, take back what was made.

        Raises:
            RunDirError: see :func:`check_free`; in use.
        """
        fresh = not self.path.exists()
        self.check_free()  # before a lock is put into somebody else's folder
        try:
            with self.held():
                self.begin(recipe)
            yield
        except (UserError, StorageError) as error:
            trained = self.checkpoints("").exists() or self.weights("").parent.exists()
            ours = not isinstance(error, RunDirError) and not (isinstance(error, StorageError) and self.has_run())
            if ours and not trained:
                with self.held():
                    self._take_back(fresh)
            raise

    def _take_back(self, folder_too: bool) -> None:
        for file in (self.manifest, self.events, self.recipe, self.path / ".lock"):
            file.unlink(missing_ok=True)
        if folder_too:
            with contextlib.suppress(OSError):  # not empty: something that is not ours
                self.path.rmdir()

    def check_free(self) -> None:
        """Refuse a folder that holds a run, or anything else.

        Raises:
            RunDirError: what it holds and what to do.
        """
        if self.has_run():
            verb = "teach" if self.half_taught() else "resume"
            raise RunDirError(
                f"{self.path} already holds a run: go on with it by 'stillhouse {verb} {self.path}', "
                "or choose another folder with --out"
            )
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunDirError(f"{self.path} is a file: choose another folder with --out")
        foreign = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
        if foreign:
            raise RunDirError(f"{self.path} is not empty ({', '.join(foreign[:3])}): choose another folder with --out")

    def settle(self, recipe: Recipe, inputs: dict[str, str], versions: dict[str, Any]) -> None:
        """Write down what the run begins with, or compare with what it began with.

        Args:
            recipe: with ``auto`` resolved.
            inputs: digest of each file and data set that the recipe names.

        Raises:
            RunDirError: a resumed run's recipe or inputs changed; says what differs.
        """
        if not self.manifest.exists():
            write_atomic(self.recipe, dump(recipe))
            manifest = {"format": _FORMAT, "recipe": as_dict(recipe), "inputs": inputs, "versions": versions}
            write_json(self.manifest, manifest)
        self.check_unchanged(recipe, inputs)
        if self.recipe.read_text() != dump(recipe):
            self.resettle(recipe)  # a process was killed before it had written down all that it settled

    def resettle(self, recipe: Recipe) -> None:
        """Write down a recipe of which more ``auto`` is settled now; the manifest first, which decides on a resume."""
        write_json(self.manifest, read_json(self.manifest) | {"recipe": as_dict(recipe)})
        write_atomic(self.recipe, dump(recipe))

    def settled(self, recipe: Recipe) -> Recipe:
        """The recipe with what earlier processes of the run settled; those may have been killed before they said so."""
        if not self.manifest.exists():
            return recipe
        before = read_json(self.manifest)
        known = before.get("recipe") if isinstance(before, dict) else None
        return validate(_with_settled(as_dict(recipe), known), str(self.recipe))

    def check_unchanged(self, recipe: Recipe, inputs: dict[str, str] | None = None) -> None:
        """Compare with what the run began with; of its inputs those that are given.

        Raises:
            RunDirError: something differs, says what; or run.json is damaged.
        """
        before = read_json(self.manifest)
        if not isinstance(before, dict) or not {"recipe", "inputs"} <= before.keys():
            raise RunDirError(f"{self.manifest} does not say what the run began with: it was changed by hand")
        begun = _with_new_keys(before["recipe"])
        changed = differences(_that_matters(begun), that_matters(recipe))
        if self.best.exists():
            changed += differences(_trials(begun), _trials(as_dict(recipe)), "search.trials")
        known = {key: before["inputs"].get(key) for key in inputs or {}}
        changed += differences(known, inputs or {})
        if changed:
            raise RunDirError(
                f"{self.path} was begun with other settings or inputs; to go on, undo this:\n  " + "\n  ".join(changed)
            )

    def other_versions(self, versions: dict[str, Any]) -> list[str]:
        """What a person should know where a run goes on under other versions or on another processor."""
        manifest = read_json(self.manifest)
        before = manifest["versions"] | {"device": manifest["recipe"]["compute"]["device"]}
        names = ("torch", "cpu", "gpu", "device")
        changed = [line for line in differences(before, versions) if line.partition(":")[0] in names]
        return [f"the run goes on with another {line}: the last bits may differ" for line in changed]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory for this process, and clear what a killed one left half-written.

        Raises:
            RunDirError: another process holds it.
        """
        with folder_lock(self.path):
            if self.has_run():  # never clean up in somebody else's folder
                remove_leftovers(self.path)
            yield


def open_run(path: Path, overrides: Sequence[str] = ()) -> tuple[RunDir, Recipe]:
    """An existing run directory and its recipe, with some values replaced (``a.b=c``).

    Raises:
        RunDirError: there is no run.
    """
    folder = RunDir(path)
    if not folder.has_run():
        raise RunDirError(f"{path} holds no run (no recipe.yaml): start one with 'stillhouse run RECIPE --out {path}'")
    return folder, load(folder.recipe, overrides)


def that_matters(recipe: Recipe) -> dict[str, Any]:
    """The recipe without what may change from one process of a run to the next: where it computes, what that draws,
    where answers come from and are kept, and how many trials a search has.
    """
    return _that_matters(as_dict(recipe))


def _that_matters(recipe: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in recipe.items() if key not in ("store", "fleet", "compute", "knowledge")}
    compute = {key: value for key, value in recipe.get("compute", {}).items() if key not in ("device", "power")}
    knowledge = {key: value for key, value in recipe.get("knowledge", {}).items() if key != "source"}
    searched = {"search": {**recipe["search"], "trials": None}} if recipe.get("search") else {}
    return kept | {"compute": compute, "knowledge": knowledge} | searched


def _with_new_keys(recipe: dict[str, Any]) -> dict[str, Any]:
    """A run's recipe with the defaults of keys that its Stillhouse did not know yet."""
    try:
        return as_dict(validate(recipe))
    except RecipeError:  # what it says is none any more: the differences tell
        return recipe


def _trials(recipe: dict[str, Any]) -> int | None:
    return recipe["search"]["trials"] if recipe.get("search") else None


def _with_settled(values: Any, known: Any, key: str = "") -> Any:
    """``values`` with ``auto``, and the number of logits kept, as ``known`` has them; the device is looked for anew, a
    fleet is what this process's recipe says.
    """
    if key == "fleet":
        return values
    if isinstance(values, dict) and isinstance(known, dict):
        return {name: _with_settled(value, known.get(name), name) for name, value in values.items()}
    unsettled = (values == AUTO and key not in ("device", "source")) or (key == "k" and values is None)
    return known if unsettled and known is not None else values


def free_folder(name: str, parent: Path = Path("runs")) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, ``-3``, ... that holds no run."""
    candidate, number = parent / name, 1
    while (candidate / "recipe.yaml").exists():
        number += 1
        candidate = parent / f"{name}-{number}"
    return candidate

"""What the tests of teaching share: recipes whose teacher is given, what they told, and stores cut about.

A teacher is trained once a process and given by its weights, so that a run takes a tenth of a second and two recipes
that differ in their data still have the same teacher.
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from stores import flip

from stillhouse.data.batch import Batch
from stillhouse.foundation.events import Event
from stillhouse.foundation.history import read_events
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.recipe.load import validate
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import run
from stillhouse.runner.teaching import Teaching
from stillhouse.store.folder import view_path, views_in
from stillhouse.store.label_store import open_folder
from stillhouse.store.shelf import stores

from .conftest import TRAIN, values

SEEN = 6 * 400  # views that the student of the tiny recipe sees
SPLIT = 1295  # training samples of the digits; a last batch that is not full is left out of an epoch
STUDENTS: dict[str, dict[str, Any]] = {
    "mlp": {"arch": "mlp", "options": {"hidden": [8]}},
    "conv": {"arch": "resnet", "options": {"width": 2, "blocks": [1, 1]}},
}
_TEACHERS: dict[str, dict[str, Any]] = {
    "mlp": {"arch": "mlp", "options": {"hidden": [32]}},
    "conv": {"arch": "resnet", "options": {"width": 4, "blocks": [1, 1]}},
}
_SCRATCH = tempfile.TemporaryDirectory(prefix="stillhouse-teachers-")


@functools.cache
def teacher(kind: str) -> str:
    """The weights file of a trained teacher."""
    folder = Path(_SCRATCH.name) / kind
    section = {"model": _TEACHERS[kind], "train": {**TRAIN, "epochs": 6, "batch_size": 40}}
    objective = {"cross_entropy": 1.0, "kd": None}
    run(validate(values(teacher=section, objective=objective, control={"seeds": 0})), folder)
    return str(folder / "weights" / "teacher.safetensors")


def lesson(
    labels: Path, source: str = "stored", kind: str = "mlp", engine: Any = None, train: Any = None, **sections: Any
) -> Recipe:
    """A run of 6 steps, a checkpoint after each, with a given teacher and no control.

    Args:
        labels: the folder of stores.
        engine: the teacher's.
        train: changes to the student's training.
    """
    plain = {
        "teacher": {"model": {**_TEACHERS[kind], "weights": teacher(kind)}, "engine": engine or {}},
        "student": {"model": STUDENTS[kind], "train": {**TRAIN, **(train or {})}},
        "store": {"path": str(labels)},
        "control": {"seeds": 0},
        "knowledge": {"source": source},
    }
    return validate(values(**(plain | sections)))


def weights(result: dict[str, Any]) -> str:
    """The digest of a run's student."""
    found: str = result["digests"]["student_weights"]
    return found


def digest(folder: Path) -> str:
    """The same of a run directory."""
    return weights(json.loads((folder / "result.json").read_text()))


def told(events: list[Event], kind: type[Event]) -> list[Any]:
    """The events of one kind."""
    return [each for each in events if isinstance(each, kind)]


def counts(folder: Path, phase: str) -> dict[str, int]:
    """Views read and asked in one phase of a run."""
    found = [each for each in read_events(folder / "events.jsonl") if each["event"] == "Progress"]
    mine = [each["counts"] for each in found if each["phase"] == phase]
    return {name: sum(each.get(name, 0) for each in mine) for name in ("hits", "misses")}


def only_store(root: Path) -> Path:
    """The one store in a folder of stores."""
    (found,) = stores(root)
    return found.folder


def answered(folder: Path) -> int:
    """Rows of a store that are valid."""
    with open_folder(folder) as store:
        ids = np.arange(store.samples)
        return sum(store.samples - len(store.missing(ids, view)) for view in views_in(folder))


def damage(folder: Path, view: int, samples: list[int], how: str) -> None:
    """Spoil rows of a view: one ``bit``, ``zeros`` over all of it, or the file ``cut`` off before the first of them.

    ``gone`` deletes the view's file.
    """
    path = view_path(folder, view)
    if how == "gone":
        path.unlink(missing_ok=True)
        return
    if not path.exists():
        return
    with open_folder(folder) as store:
        width = store.row_bytes
    if how == "cut":
        path.write_bytes(path.read_bytes()[: min(samples, default=0) * width + width // 2])
        return
    size = path.stat().st_size
    for sample in samples:
        if (sample + 1) * width > size:
            continue
        if how == "bit":
            flip(path, 8 * (sample * width + sample % width) + sample % 8)
            continue
        with path.open("r+b") as file:
            file.seek(sample * width)
            file.write(bytes(width))


class Asked:
    """Notes what runs of this process ask their teachers to teach, while it lasts: ``with Asked() as asked``.

    What is asked to try an engine, or to look at a few of a store's rows, is not meant.

    Attributes:
        keys: (sample, view) of all that was asked.
        groups: how many at once.
    """

    def __init__(self) -> None:
        self.keys: list[tuple[int, int]] = []
        self.groups: list[int] = []

    @property
    def views(self) -> int:
        """How many."""
        return len(self.keys)

    def __enter__(self) -> Asked:
        self._before = answer = Teaching._answer

        def noted(teaching: Teaching, batch: Batch) -> Knowledge:
            self.groups.append(len(batch))
            self.keys += zip(batch.sample_ids.tolist(), batch.views.tolist(), strict=True)
            return answer(teaching, batch)

        Teaching._answer = noted  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        Teaching._answer = self._before  # type: ignore[method-assign]

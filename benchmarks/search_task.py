"""The task of the search benchmark: CIFAR-10 (JPEG), a teacher, a budget, and searches that take seconds a network.

Images are brought to 16 pixels. Of the first 15,000 training images two in five train, the others choose, so that the
noise of choosing is small (half a point). The student may have a twentieth of the teacher's parameters. All arms have
the same data, teacher, stored answers, budget and longest training (8 epochs).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet

from stillhouse.foundation.events import EventLog
from stillhouse.models.placement import fixed_numerics
from stillhouse.recipe.load import load, validate
from stillhouse.recipe.recipe import Recipe, as_dict
from stillhouse.runner.environment import resolve
from stillhouse.runner.run import lesson
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.search.hunt import Hunt
from stillhouse.runner.signals import listening
from stillhouse.study.record import Trial

FOLDER = Path("runs/bench_search")
IMAGES = 15_000
RUNGS = (1, 2, 4, 8)
RECIPE = Path(__file__).parent / "search_task.yaml"

GRAPHS: Mapping[str, Any] = {
    "student.model.options.top.nodes": {"low": 3, "high": 5},
    "student.model.options.top.neighbours": {"low": 2, "high": 4},
    "student.model.options.top.probability": {"low": 0.1, "high": 1.0},
    "student.model.options.bottom.nodes": {"low": 1, "high": 4},
    "student.model.options.bottom.neighbours": {"low": 2, "high": 4},
    "student.model.options.bottom.probability": {"low": 0.1, "high": 1.0},
    "student.model.options.operation": ["conv", "separable"],
    "student.model.options.growth": {"low": 1.0, "high": 3.0},
}
TEACHING: Mapping[str, Any] = {
    "objective.kd.temperature": {"low": 1.0, "high": 20.0, "log": True},
    "objective.kd.weight": {"low": 0.0, "high": 1.0},
    "objective.cross_entropy": {"rest_of": "objective.kd.weight"},
    "student.train.optimizer.learning_rate": {"low": 0.01, "high": 0.5, "log": True},
}
BOTH = {**GRAPHS, **TEACHING}
NO_PADDING = ("data.augment.pad_px=0",)
MORE: Mapping[str, Any] = {
    "objective.kd.kind": ["kl", "dkd", "dist"],
    "data.augment.pad_px": [0, 1, 2],
}


def prepared(folder: Path, changed: Sequence[str] = (), *, short: bool) -> Recipe:
    """The task's recipe with its teacher trained: the first call trains it, in a run of its own.

    Args:
        changed: what is otherwise, as after ``--set``; the teacher stays the same.
    """
    data = images(folder, 3_000 if short else IMAGES)
    few = ["teacher.train.epochs=2"] if short else []
    given = [f"data.source.train={data}", f"store.path={folder}/labels"]
    weights = folder / "teacher" / "weights" / "teacher.safetensors"
    if not weights.exists():
        out = folder / "teacher"
        with opened(load(RECIPE, [*given, *few]), out):
            pass
    return load(RECIPE, [*given, "teacher.train=null", f"teacher.model.weights={weights}", *changed])


def images(folder: Path, count: int) -> Path:
    """A file of the first training images, written if it is not there."""
    path = folder / "train.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        whole = Path(os.environ.get("STILLHOUSE_DATA", "../shared/data"), "cifar10-jpeg-train.parquet")
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(whole).slice(0, count), path)
    return path


@contextlib.contextmanager
def opened(recipe: Recipe, out: Path, kind: Callable[..., Hunt] = Hunt) -> Iterator[Hunt]:
    """A search of a recipe, begun or gone on with in a folder; its teacher is trained."""
    folder = RunDir(out)
    with folder.held() if folder.has_run() else folder.begun(recipe), listening() as signals:
        log = EventLog(folder.events, [])
        log.mend_tail()
        settled = resolve(folder.settled(recipe))
        with fixed_numerics(int(settled.compute.threads)), lesson(folder, settled, log, signals) as known:
            yield kind(known.materials, folder, known.teacher, known.teaching, log.emit, signals)


def trials(recipe: Recipe, out: Path, kind: Callable[..., Hunt] = Hunt) -> list[Trial]:
    """All trials of a search, in the order in which they were begun."""
    with opened(recipe, out, kind) as searching:
        found = searching.trials()
        searching.close()
        return found


def with_search(recipe: Recipe, **search: Any) -> Recipe:
    """A recipe with other settings of its search."""
    values = as_dict(recipe)
    return validate({**values, "search": {**cast(dict[str, Any], values["search"]), **search}})

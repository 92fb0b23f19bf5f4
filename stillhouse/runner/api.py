"""The Python API: a recipe, or your own modules and datasets, to a distilled student."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillhouse.export.weights import load_student
from stillhouse.foundation.errors import RecipeError, RunDirError
from stillhouse.foundation.events import Event, Progress, Warned
from stillhouse.models.network import Network
from stillhouse.recipe.load import differences, load, validate
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner import run as runs
from stillhouse.runner.networks import Live
from stillhouse.runner.rundir import free_folder, open_run, that_matters


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: the run directory.
        result: what ``result.json`` holds.
        student: the student, in evaluation mode, on the CPU; takes raw batches.
    """

    folder: Path
    result: dict[str, Any] = field(repr=False)
    student: Network = field(repr=False)

    @property
    def verdict(self) -> str:
        """Whether the teacher helped, in words."""
        return str(self.result["verdict"]["words"])


def run(
    recipe: Recipe | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    teacher: nn.Module | None = None,
    data: Any = None,
    test: Any = None,
) -> Finished:
    """Run a recipe from its start to its end.

    Args:
        recipe: a path of a YAML file, plain values, or a :class:`Recipe`.
        out: folder of the run; default ``runs/NAME``, numbered if taken.
        teacher, data, test: what the recipe calls ``live``: those of the call of :func:`search` whose ``best.yaml`` it
            is.

    Raises:
        StillhouseError: see ``stillhouse.foundation.errors``.
    """
    if isinstance(recipe, str | Path):
        recipe = load(recipe)
    elif not isinstance(recipe, Recipe):
        recipe = validate(dict(recipe))
    folder = Path(out) if out is not None else free_folder(recipe.name)
    live = None if teacher is None and data is None else Live([teacher] if teacher else [], None, data, test)
    return Finished(folder, runs.run(recipe, folder, [_log], live=live), load_student(folder))


def distill(
    teacher: nn.Module | Sequence[nn.Module],
    student: nn.Module | Callable[[], nn.Module],
    data: Any,
    *,
    test: Any = None,
    out: Path | str | None = None,
    resume: bool = False,
    **sections: Any,
) -> Finished:
    """Distil your own teacher into your own student on your own data.

    Args:
        teacher: trained; normalised inputs [B, C, H, W] (or [B, *shape]) -> logits [B, K]. Not changed.
            A list of several answers as one; ``members`` says what each has to say.
        student: a module (every student starts from its weights; not changed) or a function that makes a fresh one.
        data: a map-style dataset of (sample, label): PIL images, uint8 arrays or float arrays.
        test: the same for the test split; default: a fifth of ``data``, cut by seed.
        out: folder of the run; default ``runs/distill``, numbered if taken.
        resume: go on with the run in ``out``; give the same arguments as when it began.
        **sections: the recipe's other sections as plain values, e.g. ``seed=1``,
            ``objective={"kd": {"temperature": 2}}``, ``control={"seeds": 3}``, ``train={"epochs": 30}`` (short for the
            student's), ``teacher_options={"normalise": {"mean": [...], "std": [...]}}``, and ``student_options``
            likewise, ``teacher_engine="auto"``; for several teachers ``members=[{"weight": 2}, {}]``, an entry for
            each: the recipe's ``teacher.members`` without ``model.arch``.

    Raises:
        StillhouseError: see ``stillhouse.foundation.errors``.
    """
    if not callable(student):
        raise RecipeError(f"student={student!r}: give a module, or a function that makes one; a recipe's is for run()")
    teachers = [teacher] if isinstance(teacher, nn.Module) else list(teacher)
    live = Live(teachers, student, data, test)
    values: dict[str, Any] = {"name": "distill", **sections}
    train = values.pop("train", {})
    values["teacher"] = _teachers(teachers, values.pop("members", None), values.pop("teacher_options", {}))
    values["teacher"] |= {"engine": values.pop("teacher_engine")} if "teacher_engine" in values else {}
    values["student"] = {"model": {"arch": "live", **values.pop("student_options", {})}, "train": train}
    values["data"] = {"source": {"kind": "live"}, **values.get("data", {})}
    folder, result = _taken_to_its_end(validate(values, "distill"), live, out, resume=resume)
    with torch.random.fork_rng():
        module = student if isinstance(student, nn.Module) else student()
    return Finished(folder, result, load_student(folder, module))


def blockwise(
    teacher: nn.Module,
    data: Any,
    *,
    budget: Mapping[str, float],
    test: Any = None,
    out: Path | str | None = None,
    resume: bool = False,
    **sections: Any,
) -> Finished:
    """Make a small network of your own one: its blocks are replaced one by one, the best mix within a budget is taken.

    Args:
        teacher: trained; normalised inputs [B, C, H, W] -> logits [B, K], one tensor in and one out. Not changed. If it
            saw other inputs than the data's own mean and deviation make of them, ``teacher_options`` says so, as for
            :func:`distill`.
        data: as for :func:`distill`.
        budget: the most that the student may cost: ``params``, ``macs`` and ``bytes`` as shares of the teacher's,
            ``latency_ms`` of one sample; at least one of them.
        test, out, resume: as for :func:`distill`; the default folder is ``runs/blockwise``.
        **sections: the recipe's other sections as plain values: those of ``blockwise`` besides its budget, e.g.
            ``blockwise={"blocks": "layer", "train": {"epochs": 8}}``, ``train={"epochs": 30}`` of the student once it
            is put together, ``teacher_options`` and ``teacher_engine`` as for :func:`distill`.

    Returns:
        The run; ``load_student(folder, teacher)`` loads its student again.

    Raises:
        StillhouseError: see ``stillhouse.foundation.errors``; a ModelError where the teacher can't be cut, a
            RecipeError where nothing meets the budget.
    """
    student = {"arch": "blockwise"}
    folder, result = _of_own("blockwise", teacher, data, budget, 0.25, student, sections, test, out, resume=resume)
    return Finished(folder, result, load_student(folder, teacher))


def search(
    teacher: nn.Module,
    data: Any,
    *,
    budget: Mapping[str, float],
    test: Any = None,
    out: Path | str | None = None,
    resume: bool = False,
    **sections: Any,
) -> Finished:
    """Find the small network that learns best from your own one, and how it is taught best.

    Args:
        teacher: as for :func:`blockwise`; any network, it is not cut.
        data: as for :func:`distill`; images.
        budget: the most that the student may cost: ``params``, ``macs``, ``bytes`` and ``peak_bytes`` as shares of the
            teacher's, ``latency_ms`` of one sample; at least one of them.
        test, out, resume: as for :func:`distill`; the default folder is ``runs/search``.
        **sections: the recipe's other sections as plain values: those of ``search`` besides its budget, e.g.
            ``search={"trials": 64, "space": {"objective.kd.temperature": [2, 4, 8]}}``, ``train={"epochs": 30}`` of a
            student that is trained to the end, ``student={"arch": "random_graph", "options": {...}}`` where the search
            begins, ``teacher_options`` and ``teacher_engine`` as for :func:`distill`.

    Returns:
        The run; what was tried stands in its result's ``search``.

    Raises:
        StillhouseError: see ``stillhouse.foundation.errors``; a RecipeError where nothing meets the budget.
    """
    student = sections.pop("student", {"arch": "random_graph"})
    if not isinstance(student, Mapping):
        raise RecipeError(
            f"student={getattr(student, '__name__', type(student).__name__)}: where the search begins is said as in a "
            "recipe, so that it can be built anywhere: student={'arch': 'FILE.py:FUNCTION', 'options': {...}}"
        )
    folder, result = _of_own("search", teacher, data, budget, 0.1, student, sections, test, out, resume=resume)
    return Finished(folder, result, load_student(folder))


def _of_own(
    method: str,
    teacher: nn.Module,
    data: Any,
    budget: Mapping[str, float],
    example: float,
    student: Mapping[str, Any],
    sections: Mapping[str, Any],
    test: Any,
    out: Path | str | None,
    *,
    resume: bool,
) -> tuple[Path, dict[str, Any]]:
    """Run a method that makes a student within a budget, of a teacher that was handed over; folder and result."""
    if not isinstance(budget, Mapping):
        raise RecipeError(f"budget={budget!r}: say of what, e.g. budget={{'params': {example}}}")
    if not isinstance(sections.get(method, {}), Mapping):
        raise RecipeError(f"{method}={sections[method]!r}: say it as in a recipe, e.g. {method}={{'trials': 16}}")
    values: dict[str, Any] = {"name": method, **sections}
    values["teacher"] = _teachers([teacher], None, values.pop("teacher_options", {}))
    values["teacher"] |= {"engine": values.pop("teacher_engine")} if "teacher_engine" in values else {}
    values["student"] = {"model": student, "train": values.pop("train", {})}
    values[method] = {**values.get(method, {}), "budget": dict(budget)}
    values["data"] = {"source": {"kind": "live"}, **values.get("data", {})}
    return _taken_to_its_end(validate(values, method), Live([teacher], None, data, test), out, resume=resume)


def _taken_to_its_end(
    recipe: Recipe, live: Live, out: Path | str | None, *, resume: bool
) -> tuple[Path, dict[str, Any]]:
    """Start a run, or go on with it; its folder and result."""
    if not resume:
        folder = Path(out) if out is not None else free_folder(recipe.name)
        return folder, runs.run(recipe, folder, [_log], live=live)
    if out is None:
        raise RunDirError("resume=True needs out: the folder of the run to go on with")
    begun, before = open_run(Path(out))
    changed = differences(that_matters(before), that_matters(begun.settled(recipe)))
    if changed:
        raise RunDirError(f"{out} was begun with other settings:\n  " + "\n  ".join(changed))
    trials = recipe.search.trials if recipe.search is not None else None
    return begun.path, runs.resume(Path(out), [_log], live=live, trials=trials)


def _log(event: Event) -> None:
    """Warnings, on stderr if nobody configured logging; at level INFO whatever happens, but for the steps."""
    log = logging.getLogger("stillhouse")
    if isinstance(event, Warned):
        log.warning("%s", event.message)
    elif log.isEnabledFor(logging.INFO) and not isinstance(event, Progress):
        told = (f"{each.name}={getattr(event, each.name)}" for each in fields(event))
        log.info("%s: %s", type(event).__name__, ", ".join(told))


def _teachers(
    teachers: Sequence[nn.Module], members: Sequence[Mapping[str, Any]] | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The recipe's teacher, or its members, as plain values."""
    model = {"arch": "live", **options}
    if len(teachers) == 1 and members is None:
        return {"model": model}
    if len(members or teachers) != len(teachers):
        raise RecipeError(f"members has {len(members or ())} entries for {len(teachers)} teachers: give one for each")
    told = members or [{} for _ in teachers]
    return {"members": [{**each, "model": {**model, **each.get("model", {})}} for each in told]}

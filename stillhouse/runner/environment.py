"""What a run stands on: versions, hardware, digests of the files it names; and ``auto`` turned into values."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from stillhouse.foundation.cpu_time import cores
from stillhouse.foundation.files import sha256_file
from stillhouse.models.placement import check_precision, resolve_device
from stillhouse.recipe.architectures import BLOCKWISE, BlockwiseOptions, ModelSection
from stillhouse.recipe.recipe import FunctionSource, Recipe
from stillhouse.store.shelf import stores


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every ``auto`` of ``compute`` turned into what it means here.

    Raises:
        ModelError: a device or precision that is not to be had here.
    """
    device = resolve_device(recipe.compute.device, "compute.device")
    threads = torch.get_num_threads() if recipe.compute.threads == "auto" else recipe.compute.threads
    if not _may_be_answered(recipe):
        check_precision(recipe.teacher.engine.precision, device, "teacher.engine.precision")
    check_precision(recipe.student.train.engine.precision, device, "student.train.engine.precision")
    if recipe.blockwise is not None:
        check_precision(recipe.blockwise.train.engine.precision, device, "blockwise.train.engine.precision")
    if recipe.teacher.train is not None:
        check_precision(recipe.teacher.train.engine.precision, device, "teacher.train.engine.precision")
    compute = recipe.compute.model_copy(update={"device": str(device), "threads": threads})
    return recipe.model_copy(update={"compute": compute})


def check_fleet_device(recipe: Recipe) -> None:
    """Refuse a device for workers of this machine that it lacks, where nothing else is said for that case: the student
    would do all the work of its teachers, after a warning.

    Raises:
        ModelError: it is not there.
    """
    fleet = recipe.fleet
    works_here = fleet.backend == "local" and fleet.workers_range[1] and recipe.objective.asks
    if works_here and fleet.without_teachers == "inline":
        resolve_device(fleet.device, "fleet.device")


def _may_be_answered(recipe: Recipe) -> bool:
    """Whether a store of the recipe's engine is there, so that this machine may not need to compute like it."""
    root, engine = Path(recipe.store.path), recipe.teacher.engine.model_dump(mode="json")
    found = stores(root) if root.is_dir() and recipe.knowledge.source != "inline" else []
    return any(each.manifest is not None and each.manifest.identity.parts["engine"] == engine for each in found)


def named_files(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of every file of weights or code that the recipe names (the data have a digest of their own)."""
    models = recipe.teacher.models | {"student.model": recipe.student.model}
    if recipe.student.model.arch == BLOCKWISE and recipe.blockwise is None:
        cut = BlockwiseOptions(**recipe.student.model.options).of
        models |= {"student.model.options.of": cut} if isinstance(cut, ModelSection) else {}
    files = {f"{key}.weights": model.weights for key, model in models.items()}
    code = {f"{key}.arch": model.arch for key, model in models.items() if ".py:" in model.arch}
    if isinstance(recipe.data.source, FunctionSource):
        code["data.source.train"] = recipe.data.source.train
        code |= {"data.source.test": recipe.data.source.test} if recipe.data.source.test else {}
    files |= {key: reference.rpartition(":")[0] for key, reference in code.items()}
    return {key: sha256_file(Path(file)) for key, file in files.items() if file}


def versions() -> dict[str, Any]:
    """Software and hardware, for the result and the report."""
    return {
        "stillhouse": version("stillhouse"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "networkx": version("networkx"),
        "optuna": version("optuna"),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()

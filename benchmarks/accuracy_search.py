"""What a student that was searched for is worth: against its teacher, and against the best hand-made one of its size.

Three seeds each, a teacher of its own for each; the test split is read once a run.

``digits``: the recipe of the digits as it is, a tenth of the teacher's parameters.
``cifar10``: CIFAR-10 (JPEG) at 16 pixels, 15,000 images, one in five for validation; a tenth of the teacher's
parameters and a third of its peak memory, trials as in the recipe, the student trained for longer than its teacher.
``rivals``: after ``cifar10``, the same teachers and stored answers. Hand-made students (ResNet, MobileNet, VGG) of as
many parameters as ours, searched for in the same way (depth, temperature, weight, rate: everything but graphs), trained
as long, and the better of two on the validation split taken, as ours is: of the two best points, for a hand-made
network has no other members. By plain KD, by KD with hints (FitNets) at the teacher's second stage, by decoupled KD and
by DIST.

Runs that are finished are not repeated, nor rows: call it again after an interruption. Every run has one thread.

    python -m benchmarks.accuracy_search [--quick] [digits | cifar10 | rivals ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy_blockwise import run
from benchmarks.harness import RESULTS, commit, machine
from benchmarks.search_task import images

FOLDER = Path("runs/accuracy_search")
DIGITS, CIFAR = "recipes/search-digits.yaml", "recipes/search-cifar10.yaml"
TEACHER = {"width": 48, "blocks": [2, 2, 2]}
ROWS = RESULTS / "accuracy_search.jsonl"
_DEPTHS = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [3, 3, 3]]
_LOSSES: Mapping[str, Sequence[str]] = {
    "kd": (),
    "hints": ("objective.features=[{teacher: stage2, student: stage2, weight: 1.0}]",),
    "dkd": ("objective.kd.kind=dkd",),
    "dist": ("objective.kd.kind=dist",),
}
_HAND_MADE = {
    "student.model.arch": ["resnet", "mobilenet", "vgg"],
    "student.model.options.blocks": _DEPTHS,
    "objective.kd.temperature": {"low": 1.0, "high": 20.0, "log": True},
    "objective.kd.weight": {"low": 0.0, "high": 1.0},
    "objective.cross_entropy": {"rest_of": "objective.kd.weight"},
    "student.train.optimizer.learning_rate": {"low": 0.05, "high": 0.5, "log": True},
}


def digits(seed: int, folder: Path, *, short: bool) -> list[dict[str, Any]]:
    """The recipe's row."""
    few = ["search.trials=2", "search.rungs=[1]", "student.train.epochs=1"] if short else []
    given = [f"seed={seed}", "compute.threads=1", "control.seeds=0", f"store.path={folder}/labels"]
    return [_row("digits", "random graphs, kd", seed, run(folder / f"digits-{seed}", [*given, *few], DIGITS))]


def cifar10(seed: int, folder: Path, *, short: bool) -> list[dict[str, Any]]:
    """Ours, within a tenth of the teacher."""
    teacher = f"teacher.model={{arch: resnet, options: {json.dumps(TEACHER)}}}"
    return [
        _row(
            "cifar10",
            "random graphs, kd",
            seed,
            run(_ours(folder, seed), [*_task(seed, folder, short), teacher], CIFAR),
        )
    ]


def rivals(seed: int, folder: Path, *, short: bool) -> list[dict[str, Any]]:
    """Hand-made students of the size of ours, by each loss."""
    ours = cifar10(seed, folder, short=short)[0]
    weights = _ours(folder, seed) / "weights" / "teacher.safetensors"
    share = ours["params"]["student"] / ours["params"]["teacher"]
    same = [
        *_task(seed, folder, short),
        "teacher.train=null",
        f"teacher.model={{arch: resnet, options: {json.dumps(TEACHER)}, weights: {weights}}}",
        "student.model={arch: resnet}",
        f"search.budget={{params: {share:.6f}}}",
        f"search.space={json.dumps(_HAND_MADE)}",
        "search.members=1",
        "search.families=2",
        "search.finalists=1",
    ]
    return [
        _row("cifar10", f"hand-made, {name}", seed, run(folder / f"{name}-{seed}", [*same, *loss], CIFAR))
        for name, loss in _LOSSES.items()
    ]


KINDS: Mapping[str, Callable[..., list[dict[str, Any]]]] = {"digits": digits, "cifar10": cifar10, "rivals": rivals}


def _ours(folder: Path, seed: int) -> Path:
    return folder / f"cifar10-{seed}"


def _task(seed: int, folder: Path, short: bool) -> list[str]:
    few = ["teacher.train.epochs=1", "student.train.epochs=1", "search.rungs=[1]", "search.trials=2"]
    long = ["teacher.train.epochs=30", "student.train.epochs=40"]
    return [
        f"seed={seed}",
        f"data.source.train={images(folder, 2000 if short else 15_000)}",
        "data.size_px=[16, 16]",
        "data.validation_fraction=0.2",
        "data.augment={pad_px: 2, flip: true}",
        "compute.threads=1",
        "control.seeds=0",
        "export.onnx=false",
        f"store.path={folder}/labels",
        *(few if short else long),
    ]


def _row(data: str, student: str, seed: int, result: Mapping[str, Any]) -> dict[str, Any]:
    both = {"teacher": result["teacher"], "student": result["student"]}
    found = {name: {who: each[name] for who, each in both.items()} for name in ("accuracy", "params", "peak_bytes")}
    best = result["search"]["student"]
    return {
        "data": data,
        "student": student,
        "seed": seed,
        "found": best,
        **found,
        "seconds": round(result["wall_s"], 1),
        "machine": machine(),
        "commit": commit(),
    }


def known() -> list[dict[str, Any]]:
    """The rows that are there."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def shown(rows: Sequence[Mapping[str, Any]]) -> None:
    """A line for each student: points against its teacher, and how much smaller."""
    for data, student in dict.fromkeys((each["data"], each["student"]) for each in rows):
        own = [each for each in rows if (each["data"], each["student"]) == (data, student)]
        lost = [100 * (each["accuracy"]["student"] - each["accuracy"]["teacher"]) for each in own]
        smaller = [
            statistics.fmean(each[name]["teacher"] / each[name]["student"] for each in own)
            for name in ("params", "peak_bytes")
        ]
        spread = (
            f"{statistics.fmean(lost):+.2f} ({min(lost):+.2f} to {max(lost):+.2f}) points against the teacher (test)"
        )
        less = f"{smaller[0]:.1f}x fewer parameters, {smaller[1]:.1f}x less memory"
        print(f"{data}, {student}, {len(own)} seeds: {spread}, {less}")


def main(names: Sequence[str], folder: Path, *, short: bool) -> None:
    """Run what has not been run yet, and tell."""
    rows = [] if short else known()
    for seed in range(1 if short else 3):
        for name in names:
            for row in KINDS[name](seed, folder, short=short):
                if (row["data"], row["student"], seed) not in [(e["data"], e["student"], e["seed"]) for e in rows]:
                    rows.append(row)
                    if not short:
                        ROWS.write_text("".join(json.dumps(each) + "\n" for each in rows))
    shown(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one seed, an epoch or two: proves only that it works")
    parser.add_argument("names", nargs="*", default=list(KINDS), metavar=" | ".join(KINDS))
    told = parser.parse_args()
    if unknown := set(told.names) - set(KINDS):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory(prefix="accuracy_search.") as made:
        main(told.names, Path(made) if told.quick else FOLDER, short=told.quick)

"""What a student of the teacher's blocks is worth, stage by stage, and against one trained end to end by plain KD.

CIFAR-10 (JPEG); a VGG and a ResNet that train on two cores in minutes, a quarter of their parameters, three seeds, each
with a teacher of its own. The rival is the same family, narrower, so that it has as many parameters; it learns from the
same teacher by the same loss, for as long as blocks, choice, calibration and fine-tuning took together (its number of
epochs follows from one that is timed). Choices are made on validation samples; the test split is read once a run.
Runs that are finished are not repeated: call it again after an interruption.

    python -m benchmarks.accuracy_blockwise [--quick] [vgg | resnet ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, commit, machine

FOLDER = Path("runs/accuracy_blockwise")
RECIPE = "recipes/blockwise-cifar10.yaml"
TEACHERS = {
    "vgg": {"width": 32, "blocks": [2, 2, 2]},
    "resnet": {"width": 32, "blocks": [1, 1, 1]},
}
RIVALS = {
    "vgg": {"width": 16, "blocks": [2, 2, 2]},
    "resnet": {"width": 16, "blocks": [1, 1, 1]},
}
OURS = ("blocks", "choose", "calibrate", "student")
STAGES = ("teacher", "assembled", "calibrated", "fine_tuned")


def run(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The result of a run, begun or gone on with if need be."""
    if not (folder / "result.json").exists():
        words = ["run", RECIPE, "--out", str(folder), *(part for each in overrides for part in ("--set", each))]
        if (folder / "recipe.yaml").exists():
            words = ["resume", str(folder)]
        subprocess.run([str(Path(sys.executable).parent / "stillhouse"), *words], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def of(name: str, seed: int, folder: Path, short: bool) -> dict[str, Any]:
    """Both arms of one seed."""
    few = ["teacher.train.epochs=2", "student.train.epochs=1", "blockwise.train.epochs=1"] if short else []
    same = [f"seed={seed}", "control.seeds=0", f"store.path={folder}/labels"]
    teacher = f"teacher.model={{arch: {name}, options: {json.dumps(TEACHERS[name])}}}"
    ours = run(folder / f"{name}-{seed}", [*same, teacher, *few])
    seconds = sum(spent for phase, spent in ours["phase_s"].items() if phase.partition("-")[0] in OURS)
    weights = folder / f"{name}-{seed}" / "weights" / "teacher.safetensors"
    plain = [
        *same,
        "blockwise=null",
        "teacher.train=null",
        f"teacher.model={{arch: {name}, options: {json.dumps(TEACHERS[name])}, weights: {weights}}}",
        f"student.model={{arch: {name}, options: {json.dumps(RIVALS[name])}}}",
        "student.train.optimizer.learning_rate=0.1",
    ]
    once = run(folder / f"{name}-{seed}-once", [*plain, "student.train.epochs=1"])
    epochs = max(round(seconds / once["phase_s"]["student"]), 1)
    rival = run(folder / f"{name}-{seed}-kd", [*plain, f"student.train.epochs={epochs}"])
    stages = ours["blockwise"]["stages"]
    return {
        "network": name,
        "seed": seed,
        "validation": {stage: stages[stage] for stage in STAGES},
        "test": {"teacher": ours["teacher"]["accuracy"], "ours": ours["student"]["accuracy"]}
        | {"plain_kd": rival["student"]["accuracy"]},
        "params": {"teacher": ours["teacher"]["params"], "ours": ours["student"]["params"]}
        | {"plain_kd": rival["student"]["params"]},
        "seconds": {"ours": seconds, "plain_kd": rival["phase_s"]["student"]},
        "plain_kd_epochs": epochs,
        "machine": machine(),
        "commit": commit(),
    }


def main(names: Sequence[str], short: bool) -> None:
    """Run what has not been run yet, and tell."""
    rows = []
    for seed in range(1 if short else 3):
        for name in names:
            rows.append(of(name, seed, FOLDER / ("quick" if short else "full"), short))
            print(json.dumps(rows[-1]), flush=True)
    for name in names:
        own = [row for row in rows if row["network"] == name]
        lost = statistics.mean(row["test"]["ours"] - row["test"]["teacher"] for row in own)
        won = statistics.mean(row["test"]["ours"] - row["test"]["plain_kd"] for row in own)
        print(f"{name}: {100 * lost:+.2f} points against the teacher, {100 * won:+.2f} against plain KD (test, mean)")
    if not short:
        (RESULTS / "accuracy_blockwise.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one seed, an epoch or two: proves only that it works")
    parser.add_argument("names", nargs="*", default=list(TEACHERS), metavar="vgg | resnet")
    told = parser.parse_args()
    main(told.names, told.quick)

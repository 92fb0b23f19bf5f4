"""What a student of the teacher's blocks is worth, stage by stage, and against one trained end to end by plain KD.

CIFAR-10 (JPEG); a VGG and a ResNet that train on two cores in minutes, a quarter of their parameters, three seeds, each
with a teacher of its own. The rival is the same family, narrower, so that it has as many parameters; it learns from the
same teacher by the same loss, for as long as blocks, choice, calibration and fine-tuning took together: its number of
epochs follows from a short run, and is raised where the long one took less time after all. The teacher's answers that
ours asked for are there for it. Choices are made on validation samples; the test split is read once a run. Runs that
are finished are not repeated, nor rows: call it again after an interruption. Every run has one thread, so that two
networks may be run side by side.

    python -m benchmarks.accuracy_blockwise [--quick] [vgg | resnet ...]
"""

from __future__ import annotations

import argparse
import json
import math
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
    "vgg": {"width": 32, "blocks": [1, 1, 2, 2]},
    "resnet": {"width": 32, "blocks": [1, 1, 1, 1]},
}
RIVALS = {
    "vgg": {"width": 16, "blocks": [1, 1, 2, 2]},
    "resnet": {"width": 16, "blocks": [1, 1, 1, 1]},
}
FEW = 3
MORE = 1.05
"""Of the epochs that a short run promises: one that is too short is trained anew."""
LESS = 0.97
"""Of the time that ours had: a rival that had less trains longer."""

OURS = ("blocks", "choose", "calibrate", "student")
STAGES = ("teacher", "assembled", "calibrated", "fine_tuned")


def run(folder: Path, overrides: Sequence[str], recipe: str = RECIPE) -> dict[str, Any]:
    """The result of a run, begun or gone on with if need be."""
    if not (folder / "result.json").exists():
        words = ["run", recipe, "--out", str(folder), *(part for each in overrides for part in ("--set", each))]
        if (folder / "recipe.yaml").exists():
            words = ["resume", str(folder)]
        subprocess.run([str(Path(sys.executable).parent / "stillhouse"), *words], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def of(name: str, seed: int, folder: Path, short: bool) -> dict[str, Any]:
    """Both arms of one seed; a row that is there is not made again."""
    noted = folder / f"{name}-{seed}.json"
    if noted.exists():
        kept: dict[str, Any] = json.loads(noted.read_text())
        return kept
    few = ["teacher.train.epochs=2", "student.train.epochs=1"] if short else []
    same = [f"seed={seed}", "compute.threads=1", "control.seeds=0", f"store.path={folder}/labels"]
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
        "student.train.optimizer={kind: sgd, learning_rate: 0.1}",
    ]
    epochs, rival = _as_long(folder / f"{name}-{seed}", plain, seconds)
    stages = ours["blockwise"]["stages"]
    row = {
        "network": name,
        "seed": seed,
        "validation": {stage: stages[stage] for stage in STAGES},
        "test": {"teacher": ours["teacher"]["accuracy"], "ours": ours["student"]["accuracy"]}
        | {"plain_kd": rival["student"]["accuracy"]},
        "params": {"teacher": ours["teacher"]["params"], "ours": ours["student"]["params"]}
        | {"plain_kd": rival["student"]["params"]},
        "seconds": {"ours": round(seconds, 1), "plain_kd": rival["phase_s"]["student"]},
        "plain_kd_epochs": epochs,
        "machine": machine(),
        "commit": commit(),
    }
    noted.write_text(json.dumps(row) + "\n")
    return row


def _as_long(folder: Path, plain: Sequence[str], seconds: float) -> tuple[int, dict[str, Any]]:
    """Epochs and result of a rival that had as much time, or a little more."""
    found = run(Path(f"{folder}-few"), [*plain, f"student.train.epochs={FEW}"])
    epochs = FEW
    while True:
        wanted = math.ceil(MORE * epochs * seconds / found["phase_s"]["student"])
        epochs = max(wanted, epochs + 1 if epochs > FEW else 1)
        found = run(Path(f"{folder}-kd-{epochs}"), [*plain, f"student.train.epochs={epochs}"])
        if found["phase_s"]["student"] >= LESS * seconds:
            return epochs, found


def main(names: Sequence[str], short: bool) -> None:
    """Run what has not been run yet, and tell."""
    folder = FOLDER / ("quick" if short else "full")
    for seed in range(1 if short else 3):
        for name in names:
            print(json.dumps(of(name, seed, folder, short)), flush=True)
    rows = [json.loads(each.read_text()) for each in sorted(folder.glob("*-?.json"))]
    for name in TEACHERS:
        own = [row for row in rows if row["network"] == name]
        if own:
            told = [f"{name}, {len(own)} seeds, means, in points:"]
            for stage in STAGES[1:]:
                lost = [row["validation"][stage] - row["validation"]["teacher"] for row in own]
                told.append(f"{stage} {100 * statistics.mean(lost):+.2f} against the teacher (validation);")
            for rival in ("teacher", "plain_kd"):
                won = [100 * (row["test"]["ours"] - row["test"][rival]) for row in own]
                told.append(f"{statistics.mean(won):+.2f} ({min(won):+.2f} to {max(won):+.2f}) against {rival} (test);")
            print(" ".join(told).rstrip(";"))
    if not short:
        (RESULTS / "accuracy_blockwise.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one seed, an epoch or two: proves only that it works")
    parser.add_argument("names", nargs="*", default=list(TEACHERS), metavar="vgg | resnet")
    told = parser.parse_args()
    if unknown := set(told.names) - set(TEACHERS):
        parser.error(f"no such network: {', '.join(unknown)}; there are {', '.join(TEACHERS)}")
    main(told.names, told.quick)

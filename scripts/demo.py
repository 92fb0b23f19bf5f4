"""The demo: a run with two teachers in processes of their own, one of which is killed while it answers.

Then the same run undisturbed, the teacher in the student's process: both students are the same to the last bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

RECIPE = Path("recipes/digits.yaml")
RUN, ALONE, LABELS = Path("runs/demo"), Path("runs/demo-undisturbed"), Path("runs/demo-labels")


def main() -> int:
    """Run both; the process's exit code."""
    for folder in (RUN, ALONE, LABELS):
        shutil.rmtree(folder, ignore_errors=True)
    command = stillhouse("run", str(RECIPE), "--out", str(RUN), "--workers", "2", "--set", f"store.path={LABELS}/fleet")
    with subprocess.Popen(command) as run:
        killed = kill_a_teacher(run)
    if run.returncode:
        return run.returncode
    print("\nThe same once more, undisturbed: no fleet, labels of its own, no controls ...", flush=True)
    settled = ["fleet.workers=0", "control.seeds=0", f"store.path={LABELS}/alone"]
    options = [option for each in settled for option in ("--set", each)]
    again = stillhouse("run", str(RUN / "recipe.yaml"), "--out", str(ALONE), *options)
    undisturbed = subprocess.run(again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if undisturbed.returncode:
        sys.stderr.buffer.write(undisturbed.stderr)
        return undisturbed.returncode
    return compare(killed)


def stillhouse(*arguments: str) -> list[str]:
    """The command of this environment."""
    return [str(Path(sys.executable).with_name("stillhouse")), *arguments]


def kill_a_teacher(run: subprocess.Popen[bytes]) -> str:
    """Kill the teacher that joined first as soon as both are there; its name, "nobody" if the run ended before."""
    while run.poll() is None:
        joined = [each for each in events(RUN) if each.get("event") == "FleetChanged" and each["kind"] == "joined"]
        if len(joined) >= 2:
            with contextlib.suppress(ProcessLookupError):  # the run is at its end
                os.kill(joined[0]["facts"]["pid"], signal.SIGKILL)
                return str(joined[0]["worker"])
        time.sleep(0.01)
    return "nobody"


def events(folder: Path) -> list[dict[str, object]]:
    """What a run told so far; a line that is being written is left out."""
    try:
        lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def compare(killed: str) -> int:
    """Say what the kill did; 1 if it did anything to the student."""
    result, alone = (json.loads((folder / "result.json").read_text()) for folder in (RUN, ALONE))
    fleet = result["fleet"]
    mine, other = (each["digests"]["student_weights"] for each in (result, alone))
    print(
        f"killed: {killed}; questions asked again: {fleet['questions_reissued']}; views without an answer: "
        f"{fleet['unanswered']} (section 'Teachers' of {RUN}/report.html)\n"
        f"student of the run with the kill   {mine[:16]}\nstudent of the undisturbed run     {other[:16]}\n"
        + ("the same student to the last bit" if mine == other else "NOT the same student")
    )
    return int(mine != other)


if __name__ == "__main__":
    sys.exit(main())

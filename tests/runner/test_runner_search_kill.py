"""A search whose process is killed again and again: the same trials, the same student."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from stillhouse.recipe.load import dump
from stillhouse.runner.run import run

from .test_runner_kill import digest, finish, start, told, wait_for
from .test_runner_search import EPOCH, recipe, trained

pytestmark = pytest.mark.slow


def happened(folder: Path) -> int:
    """What a search told so far."""
    return sum(told(folder, kind) for kind in ("TrialBegun", "TrialReached", "TrialEnded", "FinalistTrained"))


def test_sigkill_now_and_then(tmp_path: Path) -> None:
    """Between trials and in the middle of one; no trial is left running, none is trained from zero again."""
    wanted = run(recipe(), tmp_path / "whole")
    path, folder, chance = tmp_path / "recipe.yaml", tmp_path / "run", random.Random(7)
    path.write_text(dump(recipe()))
    kills = 0
    while not (folder / "result.json").exists():
        words = ["resume", folder] if (folder / "recipe.yaml").exists() else ["run", path, "--out", folder]
        process = start(*words)
        until = happened(folder) + chance.randint(2, 5)
        if wait_for(process, lambda until=until: happened(folder) >= until):  # type: ignore[misc]
            time.sleep(chance.random() * 0.2)
            process.send_signal(signal.SIGKILL)
            kills += 1
        code, words_said = finish(process)
        assert code in (0, -signal.SIGKILL), words_said
    assert kills >= 3
    assert trained(folder) <= trained(tmp_path / "whole") + kills * EPOCH, "a kill costs an epoch of a trial at most"
    assert digest(folder) == wanted["digests"]["student_weights"]
    found = json.loads((folder / "result.json").read_text())["search"]
    assert [each["rungs"] for each in found["trials"]] == [each["rungs"] for each in wanted["search"]["trials"]]
    theirs = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'search.db'}")
    assert TrialState.RUNNING not in [each.state for each in theirs.trials]

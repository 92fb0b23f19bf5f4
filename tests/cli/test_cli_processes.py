"""Processes of their own: exit codes, and what is not imported."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commandline import SCRIPT, refused, shell


def test_exit_code_0_and_2_of_processes(tiny: Path, tmp_path: Path) -> None:
    """A check that is fine ends with 0; a wrong key ends with 2, one line on stderr, nothing on stdout."""
    fine = shell("check", tiny, cwd=tmp_path)
    assert (fine.code, fine.err) == (0, "")
    assert "grey images of 6x6, 3 classes" in fine.out
    wrong = shell("run", tiny, "--set", "sed=1", cwd=tmp_path)
    refused(wrong, "unknown key 'sed'")
    assert (wrong.out, len(wrong.err.splitlines())) == ("", 1)
    assert not (tmp_path / "runs" / "tiny").exists()


def test_exit_code_1_when_the_disk_is_full(tiny: Path, tmp_path: Path) -> None:
    """A disk that refuses the first file ends with 1, in words, and leaves no folder."""
    said = shell("run", tiny, "--out", "run", limit_bytes=100, cwd=tmp_path)
    assert said.code == 1, said
    assert "Traceback" not in said.err
    assert "error: could not write run/recipe.yaml" in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_exit_code_130_after_ctrl_c(tiny: Path, tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a word, after a checkpoint from which the run goes on."""
    command = [SCRIPT, "run", tiny, "--out", "run", "--set", "teacher.train.epochs=100000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        events = tmp_path / "run" / "events.jsonl"
        for _ in range(600):
            if events.exists() and '"Progress"' in events.read_text():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list((tmp_path / "run" / "checkpoints" / "teacher").glob("*.ckpt"))


NO_TORCH = """
import sys
import stillhouse
from stillhouse.cli.main import main
verbs = ["run", "resume", "check", "schema", "evaluate", "export", "report"]
for words in (["--help"], ["--version"], *([verb, "--help"] for verb in verbs), ["schema"], ["check", sys.argv[-1]]):
    sys.argv = ["stillhouse", *words]
    main()
    assert "torch" not in sys.modules, words
"""


def test_help_and_check_do_without_torch(tiny: Path) -> None:
    """``import stillhouse``, every verb's help, ``schema`` and ``check`` never import torch."""
    code = NO_TORCH.replace("sys.argv[-1]", repr(str(tiny)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "train, " in done.stdout
    assert done.stdout.count("Usage: ") == 8


def test_check_is_quick(tiny: Path) -> None:
    """``check`` of a small data set is answered within a few seconds, process start and all."""
    started = time.monotonic()
    assert shell("check", tiny).code == 0
    assert time.monotonic() - started < 10  # half a second on an idle machine


def test_a_closed_pipe_does_not_end_the_run(tiny: Path, tmp_path: Path) -> None:
    """A run whose output nobody reads any more goes on to its result, silently."""
    command = [str(SCRIPT), "run", str(tiny), "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(timeout=120), said) == (0, "")
    assert (tmp_path / "run" / "result.json").exists()

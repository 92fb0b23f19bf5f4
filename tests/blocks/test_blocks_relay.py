"""Activations that are handed on from worker to worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.blocks.train import dense

from .relayed import COUNT, KINDS, SIGNAL, STOPS_AT, activations

RELAYED = Path(__file__).with_name("relayed.py")


def relayed(folder: Path, how: str) -> list[dict[str, Any]]:
    """What each of three workers in a row says at its end."""
    command = [sys.executable, str(RELAYED), str(folder / "meeting")]
    loopback = os.environ | {"GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}
    begun = [
        subprocess.Popen([*command, str(rank), how], stdout=subprocess.PIPE, text=True, env=loopback)
        for rank in range(3)
    ]
    said = [each.communicate(timeout=120)[0] for each in begun]
    assert [each.returncode for each in begun] == [0] * 3
    return [json.loads(each) for each in said]


def test_what_comes_is_what_was_sent(tmp_path: Path) -> None:
    """Every batch comes, in order, with its samples, its values and the strides that it has without gaps."""
    *_, last = relayed(tmp_path, "all")
    for kind in KINDS:
        got, signal = last[kind]["got"], last[kind]["signal"]
        assert signal == 0 and len(got) == COUNT
        for number, (sent, (ids, strides, dtype, total)) in enumerate(zip(activations(kind), got, strict=True)):
            assert ids == [10 * number, 10 * number + 1]
            assert strides == list(dense(sent).stride()) and dtype == str(sent.dtype)
            assert total == sent.double().sum().item()


@pytest.mark.parametrize(("how", "count"), [("stopped", STOPS_AT), ("at once", 0)])
def test_an_end_is_said_in_line(tmp_path: Path, how: str, count: int) -> None:
    """Where the first worker is stopped the others take what came before, and stop by the same signal."""
    first, *others = (each["plain"] for each in relayed(tmp_path, how))
    assert [len(each["got"]) for each in others] == [count] * 2
    assert [each["signal"] for each in (first, *others)] == [SIGNAL] * 3


def test_only_what_has_gaps_is_copied() -> None:
    """A tensor that lies without gaps, in whatever order, stays where it is; one with gaps is made contiguous."""
    whole = torch.rand(2, 3, 4, 4)
    for each in (whole, whole.contiguous(memory_format=torch.channels_last), whole.transpose(0, 2), whole[:, :1]):
        gaps = each.stride(0) != each[0].numel() and each.shape[1] == 1
        assert (dense(each) is each) != gaps
    assert dense(whole[:, :, ::2]).is_contiguous() and torch.equal(dense(whole[:, :, ::2]), whole[:, :, ::2])

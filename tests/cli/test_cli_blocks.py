"""``stillhouse blocks``: a network's blocks, printed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from commandline import Call, refused

OWN = """
from torch import nn


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1)

    def forward(self, inputs):
        return self.inner(inputs) if inputs.sum() > 0 else inputs


def net(classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 1), nn.ReLU(), Odd(), nn.ReLU(), nn.Flatten(), nn.Linear(512, classes))
"""


def test_a_network_is_shown_block_by_block(call: Call) -> None:
    """Each block with its shapes and costs, and the sum of all; with --replacements what may stand in its place."""
    said = call("blocks", "resnet", "--input", "3x32x32", "--classes", "10", "--option", "width=8")
    lines = said.out.splitlines()
    assert said.code == 0 and lines[0].split() == [
        *("block", "ends", "behind", "input", "output", "parameters", "MMAC", "ms")
    ]
    assert lines[-1].split()[:2] == [str(len(lines) - 2), "blocks"]
    rows = [line.split() for line in lines[1:-1]]
    assert rows[0][2] == "3x32x32" and rows[-1][3] == "10" and rows[-1][1] == "head"
    assert all(before[3] == after[2] for before, after in pairwise(rows[:-1]))
    assert sum(int(row[4].replace(",", "")) for row in rows) == int(lines[-1].split()[2].replace(",", ""))
    more = call("blocks", "resnet", "--input", "3x32x32", "--classes", "10", "--option", "width=8", "--replacements")
    assert "separable" in more.out and "of the parameters" in more.out and "is kept" in more.out


def test_what_is_not_looked_into_is_named(call: Call) -> None:
    """A module that decides by values stays whole, and that is said below its block."""
    Path("own.py").write_text(OWN)
    said = call("blocks", "own.py:net", "--input", "1x8x8", "--classes", "10", "--by", "layer")
    assert said.code == 0, said
    below = said.out.splitlines().index(next(line for line in said.out.splitlines() if line.startswith("2 ")))
    assert said.out.splitlines()[below + 1].startswith("    2 can't be looked into (TraceError: "), said.out
    assert said.out.count("it is not cut") == 1


@pytest.mark.parametrize(
    ("words", "story"),
    [
        (["resnet", "--input", "32x32"], "CHANNELSxHEIGHTxWIDTH"),
        (["resnet", "--option", "width"], "KEY=VALUE"),
        (["resnet", "--option", "size=3"], "size"),
        (["resnot"], "resnet"),
        (["timm:resnet1"], "resnet1"),
        (["mlp", "--input", "1x8x8", "--option", "hidden=[]"], "can't be cut"),
        (["vgg", "--by", "brick"], "'layer', 'block', 'stage'"),
    ],
)
def test_what_can_not_be_shown_is_told(words: list[str], story: str, call: Call) -> None:
    """A form that is none, an option or a model that is not there, a network of one block: exit code 2, in words."""
    refused(call("blocks", *words), story)

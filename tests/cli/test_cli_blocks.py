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
    assert [line.split()[0] for line in lines[1:-1]] == [str(place) for place in range(len(lines) - 2)]
    rows = [line.split()[1:] for line in lines[1:-1]]
    assert rows[0][2] == "3x32x32" and rows[-1][3] == "10" and rows[-1][1] == "head"
    assert all(before[3] == after[2] for before, after in pairwise(rows[:-1]))
    assert sum(int(row[4].replace(",", "")) for row in rows) == int(lines[-1].split()[2].replace(",", ""))
    more = call("blocks", "resnet", "--input", "3x32x32", "--classes", "10", "--option", "width=8", "--replacements")
    assert "separable" in more.out and "of the parameters" in more.out and "is kept" in more.out


RECIPE = """
data: {source: {kind: digits}}
teacher: {model: {arch: resnet, options: {width: 8, blocks: [1, 1]}}, train: {}}
"""
STUDENT = """
student:
  model: {arch: blockwise, options: {of: {arch: vgg, options: {width: 4, blocks: [1, 1]}}, blocks: layer, mix: [keep]}}
"""


def test_blocks_of_a_recipe(call: Call) -> None:
    """Its teacher's, for its data, or those of the network that its blockwise student is made of."""
    Path("ours.yaml").write_text(RECIPE + "student: {model: {arch: mlp}}\n")
    rows = [line.split() for line in call("blocks", "ours.yaml", "--by", "stage").out.splitlines()]
    assert rows[1][0] == "0" and rows[1][3] == "1x8x8" and rows[-2][1] == "head" and rows[-2][4] == "10"
    assert len(call("blocks", "ours.yaml").out.splitlines()) > len(rows)
    Path("ours.yaml").write_text(RECIPE + STUDENT)
    ours, named = call("blocks", "ours.yaml"), ["--by", "layer", "--option", "width=4", "--option", "blocks=[1, 1]"]
    theirs = call("blocks", "vgg", "--input", "1x8x8", "--classes", "10", *named)
    assert [line.split()[:5] for line in ours.out.splitlines()] == [
        line.split()[:5] for line in theirs.out.splitlines()
    ]
    refused(call("blocks", "ours.yaml", "--classes", "3"), "--classes", "a recipe says that itself")


def test_what_is_not_looked_into_is_named(call: Call) -> None:
    """A module that decides by values stays whole, and that is said below its block."""
    Path("own.py").write_text(OWN)
    said = call("blocks", "own.py:net", "--input", "1x8x8", "--classes", "10", "--by", "layer")
    assert said.code == 0, said
    below = said.out.splitlines().index(next(line for line in said.out.splitlines() if line.split()[1] == "2"))
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

"""As wide as the budget allows: candidates of families of all kinds, against limits of all kinds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stillhouse.models.build import Interface, build
from stillhouse.models.graphs.widths import BetweenError
from stillhouse.recipe.architectures import ModelSection, Normalisation
from stillhouse.runner.networks import Networks
from stillhouse.runner.search.candidate import candidate, costs_of, limits_of

from .test_runner_search import GRAPH, TRAIN, recipe

_FUNCTION = """
from torch import nn

def family(classes, channels, width=8):
    layers = [nn.Conv2d(channels, 16 * width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16 * width, classes))
"""


def networks(budget: dict[str, Any], model: dict[str, Any], width: int = 24, **search: Any) -> Networks:
    """Of a search for a student within a budget; the teacher has 85,000 parameters, where it is not wider."""
    teacher = {"model": {"arch": "resnet", "options": {"width": width, "blocks": [1, 1]}}, "train": TRAIN}
    sought = {"budget": budget, "space": {"objective.kd.temperature": [2.0, 4.0]}, **search}
    made = recipe(sought, teacher=teacher, student={"model": model, "train": TRAIN})
    return Networks(made, Interface((1, 32, 32), True, 10), Normalisation(mean=(0.5,), std=(0.5,)), None)


def shares(found: Networks) -> dict[str, float]:
    """What the candidate costs of what it may, by limit."""
    limits = limits_of(found, found.teacher())
    made = candidate(found, {}, limits, 0, 0)
    costs = costs_of(Networks(made, found.interface, found.statistics, None).student(0), found, latency_s=0.0)
    return {name: costs[name] / most for name, most in limits.most.items()}


_WIDTH = "student.model.options.width"
_MODELS: dict[str, dict[str, Any]] = {
    "graph": {"arch": "random_graph", "options": GRAPH},
    "resnet": {"arch": "resnet", "options": {"blocks": [1, 2]}},
    "mobilenet": {"arch": "mobilenet", "options": {"blocks": [1, 1]}},
}
_BUDGETS: list[dict[str, Any]] = [
    {"macs": 0.3},
    {"peak_bytes": 0.4},
    {"params": 0.5, "macs": 0.2},
    {"params": 0.2, "peak_bytes": 0.9},
    {"bytes": 0.25},
]


@pytest.mark.parametrize("budget", _BUDGETS, ids=str)
@pytest.mark.parametrize("name", _MODELS)
def test_a_network_is_as_wide_as_all_limits_allow(name: str, budget: dict[str, Any]) -> None:
    """Whichever limit is the narrowest is nearly reached, and none exceeded."""
    found = shares(networks(budget, _MODELS[name]))
    assert (0.9 if name == "graph" else 0.7) < max(found.values()) <= 1.0, found  # a channel more may be a quarter


def test_a_measured_latency_narrows_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A little is left free, for it differs from time to time; here it does not."""

    def latency_ms(network: nn.Module, inputs: torch.Tensor, budget_s: float) -> float:
        return sum(each.numel() for each in network.parameters()) / 1000

    monkeypatch.setattr("stillhouse.models.cost.latency_ms", latency_ms)
    found = shares(networks({"latency_ms": 20.0}, _MODELS["resnet"]))
    assert 0.9 < found["latency_ms"] <= 0.97


def test_one_rule_for_all_that_leaves_too_much_over() -> None:
    """Whether or not there are other limits that do not matter."""
    budget = {"params": 0.01486}
    for more in ({}, {"macs": 1.0}):
        with pytest.raises(BetweenError, match="leaves more than 5 % over"):
            shares(networks({**budget, **more}, _MODELS["mobilenet"]))


def test_a_target_narrows_networks() -> None:
    """The latency there is computed, so it can be aimed at."""
    target = {"macs_per_s": 1e7, "bytes_per_s": 1e9}
    found = shares(networks({"latency_ms": 400.0}, _MODELS["graph"], target=target))
    assert 0.8 < found["latency_ms"] <= 1.0


def test_what_none_meets_is_the_smallest() -> None:
    """Of a limit out of reach the least that is needed can be told."""
    assert shares(networks({"macs": 0.0005}, _MODELS["graph"]))["macs"] > 1.0


_ROUNDED = """
from torch import nn

def family(classes, channels, width=64):
    wide = max(8, int(width + 4) // 8 * 8)
    layers = [nn.Conv2d(channels, wide, 3), nn.ReLU(), nn.Conv2d(wide, wide, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(wide, classes))
"""


def test_a_width_that_is_rounded_is_found(tmp_path: Path) -> None:
    """As wide as its steps allow, and no wider."""
    path = tmp_path / "own.py"
    path.write_text(_ROUNDED)
    model = {"arch": f"{path}:family", "options": {"width": 64}}
    for budget in ({"params": 0.3}, {"macs": 0.5}, {"params": 0.9, "macs": 0.4}):
        found = networks(budget, model)
        share = max(shares(found).values())
        wider = candidate(found, {}, limits_of(found, found.teacher()), 0, 0).student.model.options["width"] + 8
        beyond = networks(budget, {**model, "options": {"width": wider}}, space={_WIDTH: [wider, 64]})
        limits = limits_of(beyond, beyond.teacher())
        made = candidate(beyond, {_WIDTH: wider}, limits, 0, 0)
        costs = costs_of(Networks(made, found.interface, found.statistics, None).student(0), found, latency_s=0.0)
        assert share <= 1.0 < max(costs[name] / most for name, most in limits.most.items()), budget


def test_a_width_of_ones_own_begins_with_one(tmp_path: Path) -> None:
    """A multiplier's smallest value is 1."""
    path = tmp_path / "own.py"
    path.write_text(_FUNCTION)
    model = {"arch": f"{path}:family", "options": {"width": 8}}
    found = networks({"params": 0.01}, model)
    made = candidate(found, {}, limits_of(found, found.teacher()), 0, 0)
    assert made.student.model.options["width"] == 1


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize(
    ("name", "option", "options"),
    [
        ("resnet10t", "channels", {"layers": [1, 1, 2, 1]}),
        ("convnext_atto", "dims", {"depths": [1, 1, 3, 1]}),
        ("vit_tiny_patch16_224", "embed_dim", {"img_size": 32, "patch_size": 8, "depth": 4}),
    ],
)
def test_networks_of_timm_have_a_width(name: str, option: str, options: dict[str, Any]) -> None:
    """Families of timm that take channels are made as wide as the budget allows; the options say so."""
    found = networks({"params": 0.2}, {"arch": f"timm:{name}", "options": options}, width=160)
    limits = limits_of(found, found.teacher())
    made = candidate(found, {}, limits, 0, 0)
    assert made.student.model.options.keys() == {option, *options}
    params = sum(
        each.numel() for each in Networks(made, found.interface, found.statistics, None).student(0).parameters()
    )
    assert 0.95 <= params / limits.most["params"] <= 1.0


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize("share", [0.1, 0.13, 0.17, 0.22, 0.29, 0.38])
def test_a_transformer_is_as_wide_as_its_heads_allow(share: float) -> None:
    """Its one width goes in steps of the heads: whatever the budget, the widest that fits."""
    options = {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 8}
    found = networks({"params": share}, {"arch": "timm:vit_tiny_patch16_224", "options": options}, width=160)
    limits = limits_of(found, found.teacher())
    most, wide = limits.most["params"], candidate(found, {}, limits, 0, 0).student.model.options["embed_dim"]

    def params(width: int) -> int:
        model = ModelSection(arch="timm:vit_tiny_patch16_224", options={**options, "embed_dim": width})
        return sum(each.numel() for each in build(model, found.interface, found.statistics, 0, "student").parameters())

    assert params(wide) <= most < params(wide + 8)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_what_takes_no_width_is_taken_as_it_is() -> None:
    """Of timm's mobile networks names say the width."""
    model = {"arch": "timm:mobilenetv3_small_050", "options": {}}
    found = networks({"params": 0.9}, model, width=160)
    assert candidate(found, {}, limits_of(found, found.teacher()), 0, 0).student.model.options == {}

"""What became of each block, as plain values: from the run's folder ``blocks`` and its events, however far they go.

A finished run's result holds the same under ``blockwise``. Costs are of one sample; harm is the mean KL divergence from
the teacher in nats, accuracy a share of the validation samples that replacements are judged by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stillhouse.foundation.files import read_json
from stillhouse.report.numbers import figure

KEEP = "keep"
Values = Mapping[str, Any]


def described(folder: Path, events: Sequence[Values]) -> dict[str, Any] | None:
    """What is known of a blockwise run.

    Args:
        folder: of the run.
        events: of the run, in order.

    Returns:
        ``budget`` as the recipe has it and ``limits`` by measure; ``whole``, the costs of the teacher's body;
        ``blocks``: of each its name, shapes, cost, what was ``chosen`` and the ``replacements`` that were offered, with
        cost, error at the end, harm and accuracy alone, and the story of one that diverged; ``candidates`` (the chosen
        mix first) and ``fronts`` by measure: mix, costs, expected harm, harm and accuracy put together; ``stages``:
        accuracies on the validation split; ``workers``: who trained the blocks (:func:`workers_use`). What is not known
        yet is None or empty. None where the run has no blocks.
    """
    costs = _read(folder, "costs")
    if not costs:
        return None
    choice = _read(folder, "choice")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) or {}
    candidates = [_judged(each) for each in choice.get("candidates", ())]
    mix = candidates[0]["mix"] if candidates else [None] * len(costs["blocks"])
    alone = choice.get("alone") or [{} for _ in costs["blocks"]]
    stories = {(block, name): lines for block, name, lines in _read(folder, "diverged") or ()}
    errors = {key: curve[-1][1] for key, curve in curves(events).items()}
    blocks = []
    for form, options, chosen, own in zip(costs["blocks"], costs["options"], mix, alone, strict=True):
        others = [
            {
                "name": name,
                "cost": cost,
                "error": errors.get((form["name"], name)),
                "harm": own.get(name, {}).get("harm"),
                "accuracy": own.get(name, {}).get("accuracy"),
                "diverged": stories.get((form["name"], name), []),
            }
            for name, cost in options.items()
            if name != KEEP
        ]
        blocks.append({**form, "cost": options[KEEP], "chosen": chosen, "replacements": others})
    return {
        "budget": {key: value for key, value in recipe["blockwise"]["budget"].items() if value is not None},
        "limits": choice.get("limits", {}),
        "whole": costs["whole"],
        "blocks": blocks,
        "candidates": candidates,
        "fronts": {name: [_judged(each) for each in points] for name, points in choice.get("fronts", {}).items()},
        "stages": _stages(events, blocks, _read(folder, "stages")),
        "workers": workers_use(events),
    }


def workers_use(events: Sequence[Values]) -> dict[str, Any] | None:
    """Processes that trained the blocks; None where the run's own did.

    ``plans``, in order: phase, step from which on, how many workers had something to do, efficiency predicted for those
    that were asked for, seconds a step as planned and as measured (None: it did not come to an end); ``lost``: how
    often one was.
    """
    plans: list[dict[str, Any]] = []
    for event in events:
        if event["event"] == "BlocksPlanned":
            told = {name: event.get(name) for name in ("phase", "step", "efficiency")}
            busy = len(event.get("workers") or ())
            plans.append({**told, "workers": busy, "planned_s": event.get("step_s"), "measured_s": None})
        elif event["event"] == "PlanMeasured" and plans:
            plans[-1]["measured_s"] = event.get("measured_s")
    lost = sum(event["event"] == "BlockWorkersLost" for event in events)
    return {"plans": plans, "lost": lost} if plans or lost else None


def curves(events: Sequence[Values]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(epoch, error since the point before), finite ones only, by the names of block and replacement."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for event in events:
        epoch, error = figure(event, "epoch"), figure(event, "error")
        if event["event"] == "ReplacementTrained" and epoch is not None and error is not None:
            curve = found.setdefault((str(event.get("block")), str(event.get("replacement"))), [])
            curve[:] = [point for point in curve if point[0] < epoch]  # begun again at a lower rate
            curve.append((epoch, error))
    return found


def _stages(events: Sequence[Values], blocks: Sequence[Values], measured: Values) -> dict[str, float]:
    """Accuracies on the validation split in the order of the run: those that are known."""
    told = {each.get("phase"): figure(each, "accuracy") for each in events if each["event"] == "Evaluated"}
    alone = [
        other["accuracy"] for block in blocks for other in block["replacements"] if other["name"] == block["chosen"]
    ]
    found = {
        "teacher": told.get("teacher"),
        "alone_mean": sum(alone) / len(alone) if alone else None,
        "alone_worst": min(alone, default=None),
        "assembled": measured.get("assembled", {}).get("accuracy"),
        "calibrated": measured.get("calibrated", {}).get("accuracy"),
        "fine_tuned": told.get("student"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _judged(told: Values) -> dict[str, Any]:
    return {key: told[key] for key in ("mix", "costs", "expected")} | dict(told["score"])


def _read(folder: Path, name: str) -> Any:
    path = folder / "blocks" / f"{name}.json"
    return read_json(path) if path.exists() else {}

"""Several teachers one by one, for the result: what each gets right alone, and what it costs."""

from __future__ import annotations

from typing import Any

import torch

from stillhouse.models.cost import measure_cost
from stillhouse.models.ensemble import parts
from stillhouse.models.network import Network, evaluating
from stillhouse.recipe.members import class_numbers
from stillhouse.runner.materials import Materials


def member_rows(materials: Materials, teacher: Network) -> list[dict[str, Any]]:
    """A row for each of several teachers, none for one.

    ``accuracy`` is on the test samples of the classes that a member answers for (``samples`` of them), where it has to
    choose among these (``classes``): of a specialist, too, it says how well it does its own work.
    """
    members, interface = materials.recipe.teacher.members, materials.interface
    rows = []
    for member, own, part in zip(members, class_numbers(members, interface.names), parts(teacher), strict=False):
        right, samples = _right(materials, part, own, own_outputs=member.outputs == "own")
        cost = measure_cost(part, interface)
        row = {"accuracy": right / samples if samples else None, "samples": samples, "classes": len(own)}
        rows.append(row | {"weight": member.weight, "params": cost.params, "macs": cost.macs})
    return rows


def _right(materials: Materials, part: Network, own: tuple[int, ...], *, own_outputs: bool) -> tuple[int, int]:
    """How many test samples of its classes a member gets right, and how many there are."""
    right = samples = 0
    numbers = torch.tensor(own, device=materials.device)
    with evaluating(part):
        for batch in materials.test():
            moved = batch.to(materials.device)
            logits = part(moved.inputs).float()
            chosen = numbers[(logits if own_outputs else logits[:, numbers]).argmax(1)]
            right += int((chosen == moved.targets).sum())
            samples += int(torch.isin(moved.targets, numbers).sum())
    return right, samples

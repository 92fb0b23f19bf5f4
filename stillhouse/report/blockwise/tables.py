"""Blocks and replacements as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillhouse.report.blockwise.kinds import words_of
from stillhouse.report.numbers import MISSING, TIMES, count, figure, listed, milliseconds, percent, three_digits
from stillhouse.report.table import Table

Values = Mapping[str, Any]


def blocks_table(told: Values) -> Table:
    """A row for each block: what it costs, what stands there now, how well that does."""
    rows = []
    for block in listed(told, "blocks"):
        chosen = block.get("chosen")
        other = next((each for each in listed(block, "replacements") if each.get("name") == chosen), None)
        if other is None:
            now = [MISSING if chosen is None else "kept", MISSING, MISSING, MISSING, MISSING]
        else:
            now = [words_of(str(chosen)), count(figure(other, "cost", "params")), *_quality(other)]
        rows.append([str(block.get("name")), _shapes(block), count(figure(block, "cost", "params")), *now])
    head = ["Block", "From and to", "Parameters", "Chosen", "Then", "Error", "Harm", "Correct"]
    note = "Then: parameters of what was chosen. Error: squared, in units of the output's variance, at the end of its "
    note += "training. Harm: mean KL divergence from the teacher's answers, in nats, with this block alone replaced; "
    note += "correct: the share of samples then."
    return Table("Blocks, front to back", head, rows, note=note)


def replacements_table(told: Values) -> Table:
    """A row for each replacement that was offered."""
    rows, marked = list[list[str]](), set[int]()
    for block in listed(told, "blocks"):
        for each in listed(block, "replacements"):
            if each.get("name") == block.get("chosen"):
                marked.add(len(rows))
            cost, name = each.get("cost"), f"{block.get('name')}: {words_of(str(each.get('name')))}"
            params, macs = count(figure(cost, "params")), count(figure(cost, "macs"))
            diverged = str(len(listed(each, "diverged")) or MISSING)
            rows.append([name, params, macs, milliseconds(figure(cost, "latency_ms")), *_quality(each), diverged])
    head = ["Replacement", "Parameters", "Multiply-adds", "Latency", "Error", "Harm", "Correct", "Diverged"]
    note = "Diverged: how many of its trainings did; each begins again at a third of the learning rate, twice at most."
    return Table("All replacements; the chosen ones are bold", head, rows, frozenset(marked), note=note)


def stories(told: Values) -> list[tuple[str, str]]:
    """What became of replacements that diverged."""
    return [
        (f"{block.get('name')}: {words_of(str(each.get('name')))}", str(lines[-1]))
        for block in listed(told, "blocks")
        for each in listed(block, "replacements")
        if (lines := listed(each, "diverged"))
    ]


def _quality(each: Values) -> list[str]:
    error, harm = figure(each, "error"), figure(each, "harm")
    shown = [MISSING if value is None else three_digits(float(f"{value:.3g}")) for value in (error, harm)]
    return [*shown, percent(figure(each, "accuracy"))]


def _shapes(block: Values) -> str:
    before, after = (f"{TIMES}".join(map(str, listed(block, key))) for key in ("in_shape", "out_shape"))
    return before if before == after else f"{before} → {after}"

"""The section "Block by block" of a run's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.report.blockwise import kinds
from stillhouse.report.blockwise.errors import draw_errors, trained
from stillhouse.report.blockwise.fronts import LEGEND, draw_fronts, front_tables
from stillhouse.report.blockwise.read import KEEP, curves, described
from stillhouse.report.blockwise.stages import draw_stages
from stillhouse.report.blockwise.tables import blocks_table, replacements_table, stories
from stillhouse.report.blockwise.workers import LEGEND as WORKERS
from stillhouse.report.blockwise.workers import block_workers, draw_workers, workers_table
from stillhouse.report.draw import Drawing
from stillhouse.report.numbers import count, dig, figure, listed, milliseconds, percent, size
from stillhouse.report.read import Run
from stillhouse.report.table import Table

_FEW = 9
_SHARES = {"params": ("parameters", count), "macs": ("multiply-adds", count), "bytes": ("bytes", size)}


@dataclass(frozen=True)
class BlockSection:
    """What the page says of the blocks; ``legend`` belongs to the figure of errors, ``front_legend`` to the fronts."""

    sentence: str
    table: Table
    columns: list[list[Drawing]]
    legend: list[tuple[str, str]]
    front_legend: list[tuple[str, str]]
    workers: Drawing | None
    workers_legend: list[tuple[str, str]]
    workers_table: Table | None
    details: list[Table]
    stories: list[tuple[str, str]]


def block_section(run: Run) -> BlockSection | None:
    """The section, as far as a run got; None where it has no blocks."""
    told: Mapping[str, Any] | None = dig(run.result, "blockwise") or described(run.folder, run.events)
    if told is None or not listed(told, "blocks"):
        return None
    known = curves(run.events)
    chosen = {str(block.get("name")): block.get("chosen") for block in listed(told, "blocks")}
    fronts = draw_fronts(told)
    workers = block_workers(run.events)
    drawn = draw_workers(workers)
    errors, stages = draw_errors(known, chosen), draw_stages(dig(told, "stages") or {})
    left, right = ([errors, stages], [fronts]) if len(chosen) <= _FEW else ([errors], [stages, fronts])
    return BlockSection(
        sentence(told),
        blocks_table(told),
        [[each for each in column if each is not None] for column in (left, right)],
        kinds.legend(trained(known)),
        LEGEND if fronts else [],
        drawn,
        WORKERS if drawn else [],
        workers_table(workers),
        [replacements_table(told), *front_tables(told)],
        stories(told),
    )


def sentence(told: Mapping[str, Any]) -> str:
    """How the teacher was cut, and what was chosen under which budget."""
    blocks = listed(told, "blocks")
    offered = sum(len(listed(block, "replacements")) for block in blocks)
    said = f"The teacher was cut into {len(blocks)} blocks, for which {offered} replacements were offered."
    names = [block.get("chosen") for block in blocks]
    if None in names:
        return f"{said} None was chosen yet."
    kept = sum(name == KEEP for name in names)
    return f"{said} The chosen mix replaces {len(blocks) - kept} and keeps {kept}, for {_budget(told)}."


def _budget(told: Mapping[str, Any]) -> str:
    said = []
    for name, limit in (dig(told, "limits") or {}).items():
        if name in _SHARES:
            noun, shown = _SHARES[name]
            said.append(f"{percent(figure(told, 'budget', name), 0)} of the {noun} ({shown(limit)})")
        else:
            said.append(f"{milliseconds(figure(told, 'limits', name))} a sample")
    return f"at most {' and '.join(said)}" if said else "no budget that is known"

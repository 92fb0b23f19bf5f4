"""Members of a family of random graphs, drawn: cells from left to right in their stages, and what leads where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from stillhouse.foundation.errors import ModelError
from stillhouse.models.graphs.graph import Graph
from stillhouse.models.graphs.member import Member, member
from stillhouse.recipe.random_graph import RandomGraphOptions
from stillhouse.report.draw import COLOURS, Drawing, canvas, to_svg
from stillhouse.report.numbers import dig, listed

_MOST: Final = 4
_STAGES: Final = ("data", "teacher", "evaluate", "checkpoint", "other", "control")
Values = Mapping[str, Any]


def draw_members(told: Values) -> Drawing | None:
    """The finalists' graphs, those of the student's family first; None where they are none."""
    best = dig(told, "student", "trial")
    finalists = sorted(listed(told, "finalists"), key=lambda each: each.get("trial") != best)
    found = [(each, graphs) for each in finalists if (graphs := _graphs(each)) is not None][:_MOST]
    if not found:
        return None
    families = len({each.get("trial") for each, _ in found})
    whose = "the best family" if families == 1 else f"the best {families} families"
    cells, operations = (_range(each) for each in zip(*((g.top.nodes, g.operations) for _, g in found), strict=True))
    title = f"Members of {whose}: {cells} cells, {operations} operations."
    described = [
        f"Finalist {each.get('member')} of trial {each.get('trial')}: edges "
        f"{', '.join(f'{start}-{end}' for start, end in graphs.top.edges)}."
        for each, graphs in found
    ]
    with canvas("search-members", 0.25 + 1.6 * len(found)) as figure_:
        rows = figure_.subplots(len(found), 1, squeeze=False)[:, 0]
        for axes, (each, graphs) in zip(rows, found, strict=True):
            _draw(axes, graphs)
            mark = ", the student" if dig(told, "student") == {n: each.get(n) for n in ("trial", "member")} else ""
            axes.set_title(f"finalist {each.get('trial')}-{each.get('member')}{mark}", fontsize=11)
        svg = to_svg(figure_, "search-members", " ".join(described))
    note = "Circles are cells, in the colour of their stage; below each the graphs of operations in it. Left to right."
    return Drawing("search-members", title, " ".join(described), note, svg)


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _graphs(finalist: Values) -> Member | None:
    if finalist.get("arch") != "random_graph":
        return None
    try:
        return member(RandomGraphOptions(**(dig(finalist, "options") or {})))
    except (ModelError, ValidationError, TypeError):  # drawn by another version
        return None


def _draw(axes: Any, graphs: Member) -> None:
    from matplotlib.patches import FancyArrowPatch

    for start, end in graphs.top.edges:
        bend = 0.0 if end == start + 1 else (-0.3 if (start + end) % 2 else 0.3)
        axes.add_patch(
            FancyArrowPatch(
                (start, 0), (end, 0), connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=7,
                color=COLOURS["muted"], linewidth=0.9, shrinkA=9, shrinkB=9, zorder=2, clip_on=False,
            )
        )  # fmt: skip
    for cell, stage in enumerate(graphs.stages):
        axes.plot([cell], [0], marker="o", markersize=14, color=COLOURS[_STAGES[stage % len(_STAGES)]], zorder=3)
        axes.text(cell, 0, str(cell), ha="center", va="center_baseline", color=COLOURS["ink"], zorder=4)
        _draw_operations(axes, cell, graphs.bottom[cell])
    axes.set_xlim(-0.5, graphs.top.nodes - 0.5)
    axes.set_ylim(-1.3, 0.8)
    axes.axis("off")


def _draw_operations(axes: Any, cell: int, several: Sequence[Graph]) -> None:
    """The graphs in a cell, side by side below it: a dot for each operation."""
    for number, graph in enumerate(several):
        left, wide = cell - 0.36 + 0.72 * number / len(several), 0.72 / len(several)
        places = [
            (left + wide * (node + 0.5) / graph.nodes, -0.85 + (0.22 if node % 2 else -0.22) * (graph.nodes > 1))
            for node in range(graph.nodes)
        ]
        for start, end in graph.edges:
            axes.plot(*zip(places[start], places[end], strict=True), color=COLOURS["muted"], linewidth=0.6, zorder=2)
        axes.plot(*zip(*places, strict=True), linestyle="", marker="o", markersize=2.6, color=COLOURS["ink"], zorder=3)

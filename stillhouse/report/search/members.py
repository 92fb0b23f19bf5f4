"""Members of a family of random graphs, drawn: cells from left to right in their stages, and what leads where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from stillhouse.foundation.errors import ModelError
from stillhouse.models.graphs.member import Member, member
from stillhouse.recipe.random_graph import RandomGraphOptions
from stillhouse.report.draw import COLOURS, Drawing, canvas, to_svg
from stillhouse.report.numbers import dig, listed

_MOST: Final = 4
_STAGES: Final = ("data", "teacher", "evaluate", "checkpoint", "other", "control")
Values = Mapping[str, Any]


def draw_members(told: Values) -> Drawing | None:
    """The finalists' graphs; None where they are none."""
    found = [(each, graphs) for each in listed(told, "finalists") if (graphs := _graphs(each)) is not None][:_MOST]
    if not found:
        return None
    operations = sorted({graphs.operations for _, graphs in found})
    several = f"{operations[0]}" if len(operations) == 1 else f"{operations[0]} to {operations[-1]}"
    title = f"Members of the best family: {found[0][1].top.nodes} cells, {several} operations."
    described = [
        f"Member {each.get('member')} of trial {each.get('trial')}: edges "
        f"{', '.join(f'{start}-{end}' for start, end in graphs.top.edges)}."
        for each, graphs in found
    ]
    with canvas("search-members", 0.25 + 1.4 * len(found)) as figure_:
        rows = figure_.subplots(len(found), 1, squeeze=False)[:, 0]
        for axes, (each, graphs) in zip(rows, found, strict=True):
            _draw(axes, graphs)
            axes.set_title(f"trial {each.get('trial')}, member {each.get('member')}", fontsize=11)
        svg = to_svg(figure_, "search-members", " ".join(described))
    note = "A cell's number says how many operations are in it; arcs lead from left to right; colours are stages."
    return Drawing("search-members", title, " ".join(described), note, svg)


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
        axes.plot([cell], [0], marker="o", markersize=17, color=COLOURS[_STAGES[stage % len(_STAGES)]], zorder=3)
        count = sum(graph.nodes for graph in graphs.bottom[cell])
        axes.text(cell, 0, str(count), ha="center", va="center_baseline", color=COLOURS["ink"], zorder=4)
    axes.set_xlim(-0.5, graphs.top.nodes - 0.5)
    axes.set_ylim(-1, 1)
    axes.axis("off")

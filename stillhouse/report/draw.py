"""From a matplotlib figure to an SVG that lives inside a page, light or dark, the same bytes every time.

Things are drawn in *sentinel* colours, which become CSS variables afterwards: one SVG serves both themes. Text stays
text (the page's own font, searchable). Nothing outside is referred to: no namespace links, no metadata, no style sheet;
ids get the figure's name in front, since one page holds several. Sizes are in points = SVG units: a figure is 331 wide
and no text is smaller than 11, so that on a phone (scaled by 0.9) it has 10 px. matplotlib is imported when the
first figure is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCH: Final = 4.6
FONT_PT: Final = 11.0

_NAMES = "ink muted line teacher student control data evaluate checkpoint other on-part store bad"
COLOURS: Final = {name: f"#0101{index:02x}" for index, name in enumerate(_NAMES.split(), 1)}


@dataclass(frozen=True)
class Drawing:
    """A figure of the page: its title is a sentence, ``description`` is read out, ``note`` explains."""

    name: str
    title: str
    description: str
    note: str
    svg: str


@contextmanager
def canvas(name: str, height_inch: float) -> Iterator[Figure]:
    """An empty figure in the page's style, whatever the user's own matplotlib settings say."""
    import matplotlib.style
    from matplotlib.figure import Figure

    ink, muted, line = COLOURS["ink"], COLOURS["muted"], COLOURS["line"]
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": FONT_PT,
        "axes.titlesize": FONT_PT,
        "axes.titlelocation": "left",
        "axes.titlecolor": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": line,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": line,
        "grid.linewidth": 0.8,
        "text.color": ink,
        "xtick.color": line,
        "xtick.labelcolor": muted,
        "ytick.color": line,
        "ytick.labelcolor": muted,
        "ytick.left": False,
        "lines.solid_capstyle": "round",
    }
    with matplotlib.style.context(["default", style]):
        figure = Figure(figsize=(WIDTH_INCH, height_inch), layout="constrained")
        figure.patch.set_alpha(0.0)
        yield figure


def to_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element for a page. Call it inside :func:`canvas`."""
    from markupsafe import escape

    for axes in figure.axes:
        axes.patch.set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for unwanted in (r"<metadata>.*?</metadata>", r"<style[^>]*>.*?</style>", r"<!--.*?-->", r"<defs>\s*</defs>"):
        svg = re.sub(unwanted, "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    for colour, sentinel in COLOURS.items():
        body = body.replace(sentinel, f"var(--{colour})")
    body = re.sub(r"\n\s*", "\n", body).rstrip()
    return f'<svg {box[0]} role="img" aria-label="{escape(description)}">{body}'


def thin(curve: Sequence[tuple[float, float]], most: int = 240) -> tuple[list[float], list[float]]:
    """A curve as xs and ys, long ones as means of equal stretches: a page must not grow with the run."""
    if len(curve) > most:
        cuts = [len(curve) * index // most for index in range(most + 1)]
        pieces = [curve[low:high] for low, high in pairwise(cuts)]
        curve = [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in pieces]
    return [x for x, _ in curve], [y for _, y in curve]


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights in 0..1 as near as they go to the wanted ones, each ``gap`` from the next, order kept."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    groups = [[index] for index in order]
    centre = [wanted[index] for index in order]
    at = 0
    while at < len(groups) - 1:
        below, above = groups[at], groups[at + 1]
        if centre[at + 1] - centre[at] < gap * (len(below) + len(above)) / 2 - 1e-9:
            groups[at : at + 2] = [below + above]
            both = len(below) + len(above)
            centre[at : at + 2] = [(centre[at] * len(below) + centre[at + 1] * len(above)) / both]
            at = max(0, at - 1)
        else:
            at += 1
    placed = [0.0] * len(wanted)
    for group, middle in zip(groups, centre, strict=True):
        for rank, index in enumerate(group):
            placed[index] = middle + gap * (rank - (len(group) - 1) / 2)
    return placed


def epochs_axis(axes: Axes, label: bool = True) -> None:
    """The horizontal axis of everything told by epoch."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if label:
        axes.set_xlabel("epoch")

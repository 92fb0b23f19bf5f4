"""One self-contained page for a run: ``report.html``, readable from a phone to a printout, in light and dark.

No script, no link to anywhere: the page can be mailed. The same run directory gives the same bytes, so the page may be
written again at any time. The template is ``report.html.j2`` with ``report.css.j2``; both travel in the package.
Most of its cost is importing and running matplotlib.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.foundation.files import write_atomic
from stillhouse.report import engines, epochbars, labels, students, teacher_words, timeline, words
from stillhouse.report.blockwise.section import block_section
from stillhouse.report.compare import key_figures, rows
from stillhouse.report.compare import verdict as verdict_sentence
from stillhouse.report.draw import Drawing
from stillhouse.report.numbers import dig
from stillhouse.report.plots import draw_accuracy, draw_learning_rate, draw_losses, draw_throughput
from stillhouse.report.read import Run, read_run
from stillhouse.report.search.section import search_section
from stillhouse.report.teachers import teachers
from stillhouse.report.timebar import draw_time
from stillhouse.report.waiting import on_accelerator

if TYPE_CHECKING:
    from markupsafe import Markup

_UNITS = re.compile(r"(?<=[\d.]) (?=(%|points|[kMGT]?B|[kMGT]J?|J|ms|µs|s|min|h)\b|%)")


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run directory, atomically; returns its path.

    Raises:
        RunDirError: not the directory of a run.
        StorageError: the disk refused.
    """
    page = render(read_run(folder))
    path = folder / "report.html"
    write_atomic(path, page)
    return path


def render(run: Run) -> str:
    """The page as text."""
    return fill_in("report.html.j2", _values(run) | _teachers(run) | _blocks(run) | _search(run))


def fill_in(template: str, values: Mapping[str, Any]) -> str:
    """A page of this room: its template with what it arranges."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["glue"] = glue
    return environment.get_template(template).render(values)


def glue(text: str) -> str:
    """Keep a number and its unit on one line."""
    return _UNITS.sub("\N{NO-BREAK SPACE}", text)


def _values(run: Run) -> dict[str, Any]:
    result = run.result or {}
    verdict, fine_print, tone = words.headline(run)
    python, commands = words.usage(run)
    learning = [draw_accuracy(run), draw_losses(run), draw_learning_rate(run)]
    timing = [draw_time(run), draw_throughput(run)]
    return _by_epoch(run) | {
        "name": str(dig(result, "name") or run.folder.resolve().name),
        "method": str(dig(result, "method") or ""),
        "finished": run.result is not None,
        "verdict": verdict,
        "fine_print": fine_print,
        "sentence": verdict_sentence(result) if run.result is not None else verdict,
        "tone": tone,
        "key_figures": key_figures(result),
        "rows": rows(result) if run.result is not None else [],
        "has_control": dig(result, "control") is not None,
        "learning": [marked(drawing) for drawing in learning if drawing],
        "timing": [marked(drawing) for drawing in timing if drawing],
        "speed": words.speed(run),
        "engines": engines.tables(run),
        "costs": words.costs(run),
        "exported": words.exported(run),
        "python": python,
        "commands": commands,
        "warnings": words.warnings(run),
        "data": words.data(run),
        "recipe": run.recipe,
        "environment": words.mapping(run, "environment"),
        "digests": words.mapping(run, "digests"),
    }


def _by_epoch(run: Run) -> dict[str, Any]:
    """What the page tells epoch by epoch: the time of each training, and the label store."""
    told = epochbars.courses(run)
    drawn = [
        (epochbars.is_further_seed(each), marked(epochbars.draw_course(each, f"epochs-{at}")))
        for at, each in enumerate(told)
    ]
    stored = labels.has_store(run)
    reads = labels.draw_reads(told) if stored else None
    return {
        "time_legend": epochbars.legend(told),
        "epochs": [marked for further, marked in drawn if not further],
        "epochs_of_further_seeds": [marked for further, marked in drawn if further],
        "epoch_tables": [epochbars.numbers(each) for each in told],
        "on_accelerator": on_accelerator(run),
        "store": labels.summary(run, told) if stored else "",
        "store_facts": labels.facts(run) if stored else [],
        "store_figure": [marked(reads)] if reads else [],
        "store_legend": labels.LEGEND,
        "store_table": labels.by_training(told) if stored else None,
    }


def _teachers(run: Run) -> dict[str, Any]:
    """Who answered for the teacher, or learnt, in processes of their own."""
    found = teachers(run)
    drawing = timeline.draw_timeline(found)
    return {
        "fleet_figure": [marked(drawing)] if drawing else [],
        "fleet_legend": timeline.LEGEND,
        "fleet_sentence": teacher_words.sentence(run),
        "fleet_table": teacher_words.table(run, found),
        "fleet_facts": teacher_words.facts(run, found),
        "students_table": students.table(run),
    }


def _blocks(run: Run) -> dict[str, Any]:
    """A student that is made of its teacher's blocks."""
    found = block_section(run)
    columns = found.columns if found is not None else []
    return {
        "blocks": found,
        "block_figures": [[marked(each) for each in own] for own in columns],
        "block_workers": [marked(found.workers)] if found is not None and found.workers is not None else [],
    }


def _search(run: Run) -> dict[str, Any]:
    """A student that was searched for."""
    found = search_section(run)
    columns = found.columns if found is not None else []
    return {"search": found, "search_figures": [[marked(each) for each in own] for own in columns]}


def marked(drawing: Drawing) -> tuple[Drawing, Markup]:
    """The figure, and its SVG as markup: made by us, texts in it escaped by matplotlib."""
    from markupsafe import Markup

    return drawing, Markup(drawing.svg)

"""The page: whole, self-contained, accessible, escaped. No training, no torch: about 4 s."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from stillhouse.report.draw import COLOURS
from stillhouse.report.html import write_report

Json = dict[str, Any]
MakeRun = Callable[..., Path]


class Outline(HTMLParser):
    """What the tests look at: tags, ids, references, headings, the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.svgs: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.references.append(value or "")
        if tag == "svg":
            self.svgs.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data

    def words(self) -> str:
        return self.text.replace("\N{NO-BREAK SPACE}", " ")


def test_self_contained(page: str) -> None:
    """The page refers to nothing outside of itself and runs no script."""
    outline = Outline(page)
    assert not re.search(r"https?:|//[a-z]|@import|javascript:", page)
    assert not {"script", "link", "iframe", "img", "object"} & set(outline.tags)
    assert all(reference.startswith("#") and reference[1:] in outline.ids for reference in outline.references)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(outline.ids)


def test_every_figure_of_the_result_is_told(page: str, result: Json) -> None:
    """Whatever the result says is on the page, in a person's units."""
    words = Outline(page).words()
    told = (
        "Distillation helped: +1.9 points.", "95 % interval +0.8 to +3.0; 2 seeds each, 360 test samples.",
        "98.1 %", "96.4 %", "94.5 %", "96.0 to 99.1 %", "93.9 to 97.9 %", "96.4, 96.1 %", "94.2, 94.9 %", "697 k",
        "56.6 k", "5.23 M", "498 k", "2.80 MB", "231 kB", "9.10 MB", "1.90 MB", "1.71 ms", "0.42 ms", "12.3×", "4.1×",
        "10.5× fewer", "12.1× smaller", "4.8× less", "\N{MINUS SIGN}1.7 points", "4,380 samples a second",
        "waited 49 % of its training time: 41 % for the teacher, 8 % for data.",
        "idle for 63 %", "38.1 %", "47.9 %", "unavailable: no RAPL counter here", "52.1 s",
        "20.1 s", "8.2 s", "7.5 s", "5d" * 32, "7e" * 32, "da" * 32, "3c" * 32, "student.onnx", "233 kB", "0.31 ms",
        "1.2e-06", "256", "same class for all", "1,222", "215 samples", "360 samples", "2: zero, one", "1 × 8 × 8",
        "3 unreadable samples", "3.11.7", "2.13.0", "A Fast One", "The test split is small.", "name: digits",
        'stillhouse.load_student("digits")', "stillhouse evaluate digits", "stillhouse export digits",
    )  # fmt: skip
    assert [each for each in told if each not in words] == []
    assert result["verdict"]["words"] in page


def test_accessible_structure(page: str) -> None:
    """Headings descend one level at a time, ids are unique, each figure has a role and a description."""
    outline = Outline(page)
    levels = [int(tag[1]) for tag in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(outline.ids) == len(set(outline.ids))
    assert len(outline.svgs) == 10
    assert all(svg["role"] == "img" and len(svg["aria-label"] or "") > 30 for svg in outline.svgs)
    assert '<html lang="en">' in page
    assert "prefers-color-scheme: dark" in page


def test_svg_follows_the_theme(page: str) -> None:
    """No drawing colour is left in a figure that the style sheet doesn't set, in light and in dark."""
    svgs = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    used = set(re.findall(r"var\(--([a-z-]+)\)", svgs))
    light, dark = (dict(re.findall(r"--([a-z-]+): (#\w{6});", block)) for block in page.split("@media", 2)[:2])
    assert not re.findall(r"#(?:[0-9a-f]{6})\b", svgs)
    assert used <= set(COLOURS) <= set(light)
    assert set(light) == set(dark)


def test_contrast(page: str) -> None:
    """Every text colour stands out by 4.5 to 1 from what it is on, in both themes (WCAG AA)."""
    for block in page.split("@media", 2)[:2]:
        colour = dict(re.findall(r"--([a-z-]+): (#\w{6});", block))
        texts = ("ink", "muted", "teacher", "student", "control")
        pairs = [(text, ground) for text in texts for ground in ("paper", "card")]
        pairs += [("ink", "code")] + [("on-part", part) for part in ("data", "teacher", "store", "student", "evaluate")]
        pairs += [("on-part", "other")]
        ratios = {pair: contrast(colour[pair[0]], colour[pair[1]]) for pair in pairs}
        assert min(ratios.values()) >= 4.5, ratios


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_in_figures_is_readable_on_a_phone(page: str) -> None:
    """No text in a figure is drawn smaller than 11 units of a figure 331 units wide."""
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert {re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0] for svg in svgs} == {"331.2"}
    sizes = [float(found) for svg in svgs for found in re.findall(r"font-size: ([\d.]+)px", svg)]
    assert len(sizes) > 40
    assert min(sizes) >= 11


def test_same_bytes_twice(finished: Path, page: str) -> None:
    """Writing the report again gives the same bytes."""
    assert write_report(finished).read_text() == page


def test_hostile_strings_are_escaped(
    result: Json, events: list[Json], told: Callable[..., Json], make_run: MakeRun, tmp_path: Path
) -> None:
    """Markup in names, warnings, recipe, classes and loss parts is shown, not obeyed."""
    evil = '"><script>alert(1)</script>{{ 7 * 7 }}$x_1$-->'
    result |= {"name": evil, "method": evil, "warnings": [evil]}
    result["data"] |= {"name": evil, "classes": [evil]}
    result["environment"]["cpu"] = result["energy"]["source"] = result["verdict"]["words"] = evil
    result["throughput"]["seconds"][evil] = 1.0
    events.append(told("student", 13, 0.1, **{f"features.{evil}": 0.3}))
    events.append(told(evil, 1) | {"seconds": {evil: 1.0}, "counts": {evil: 1}})
    events.append({"event": "EngineTried", "role": evil, "engine": evil, "chosen": True, "refused": evil})
    events.append({"event": "StoreOpened", "folder": evil, "views": evil, "bytes_planned": evil, "note": evil})
    folder = make_run(tmp_path / "it's <b>", result, events, recipe=f"name: '{evil}'\n")
    written = write_report(folder).read_text()
    outline = Outline(written)
    assert "script" not in outline.tags
    assert "b" not in outline.tags[outline.tags.index("main") :]
    assert outline.text.count("alert(1)") >= 12
    assert "49$x_1" not in written
    assert "stillhouse export 'it'\"'\"'s <b>'" in outline.text


def test_unfinished_run(trained: Callable[..., list[Json]], make_run: MakeRun, tmp_path: Path) -> None:
    """A run without a result, its last line torn, gives its curves so far and says that it is unfinished."""
    folder = make_run(tmp_path / "half", None, [*trained("teacher", 0.98), *trained("student", 0.96, steps=7)])
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"time": 1.0, "event": "Progr')
    outline = Outline(write_report(folder).read_text())
    assert "Unfinished" in outline.text
    assert "step 7 of 12" in outline.words()
    assert len(outline.svgs) == 7
    assert "Use the student" not in outline.text


def test_nothing_happened_yet(make_run: MakeRun, tmp_path: Path) -> None:
    """A run that failed before its first step still gives a page."""
    outline = Outline(write_report(make_run(tmp_path / "new", None, [])).read_text())
    assert "Nothing was trained so far." in outline.text
    assert not outline.svgs


def test_a_given_teacher_is_not_said_to_be_finished(tmp_path: Path, make_run: MakeRun) -> None:
    """A run that got no further than a teacher that was given has trained nothing."""
    given = [{"event": "PhaseStarted", "phase": "teacher", "step": 0, "steps": 0}]
    given += [{"event": "PhaseFinished", "phase": "teacher", "seconds": 0.0}]
    page = write_report(make_run(tmp_path / "run", None, given)).read_text()
    assert "Nothing was trained so far." in page and "Finished so far" not in page

"""The page's facts in words: every section as plain text and pairs, so that the template only arranges.

A section whose figures are missing is an empty string or list, and the template leaves it out. Nothing here is markup:
whatever a recipe or a warning says is escaped by the template.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from stillhouse.foundation.files import read_json
from stillhouse.report.compare import verdict
from stillhouse.report.numbers import TIMES, dig, energy, figure, grouped, listed, milliseconds, percent, seconds, size
from stillhouse.report.plots import student_throughput
from stillhouse.report.read import Phase, Run, phase_words
from stillhouse.report.waiting import wait_words

Pairs = list[tuple[str, str]]


def headline(run: Run) -> tuple[str, str, str]:
    """(verdict, its fine print, tone): tone is ``good``, ``bad``, ``open`` or ``unfinished``."""
    if run.result is None:
        return "Unfinished: this run has no result yet.", _progress(run), "unfinished"
    words = verdict(run.result)
    helped = dig(run.result, "verdict", "helped")
    tone = "good" if helped is True else "bad" if helped is False else "open"
    head, bracket, rest = words.partition(" (")
    if bracket and rest.endswith(")."):
        return f"{head}.", f"{rest[0].upper()}{rest[1:-2]}.", tone
    return words, "", tone


def usage(run: Run) -> tuple[str, list[str]]:
    """The Python lines and the commands that use this run's student, names quoted as each language wants. Where its
    module was handed over from Python no command can build it.
    """
    name, whose = run.folder.resolve().name, _handed_over(run)
    shape = " x ".join(str(side) for side in listed(run.result, "data", "shape"))
    comment = f"  # batch: N x {shape}" if shape else ""
    python = (
        f"import stillhouse\n\nstudent = stillhouse.load_student({json.dumps(name, ensure_ascii=False)}{whose})\n"
        f"scores = student(batch){comment}"
    )
    if whose:
        return python, []
    return python, [f"stillhouse evaluate {shlex.quote(name)}", f"stillhouse export {shlex.quote(name)}"]


def _handed_over(run: Run) -> str:
    """What ``load_student`` needs besides the folder: the module that the student was, or that it is made of."""
    path = run.folder / "student.json"
    model = dig(read_json(path), "model") if path.exists() else None
    made_of_blocks = dig(model, "arch") == "blockwise"
    arch = dig(model, "options", "of", "arch") if made_of_blocks else dig(model, "arch")
    return "" if arch != "live" else ", teacher" if made_of_blocks else ", student_module"


def speed(run: Run) -> list[str]:
    """Throughput, who waited for whom, energy: a sentence each."""
    rate = student_throughput(run)
    sentences = [f"The student trained on {grouped(rate)} samples a second."] if rate is not None else []
    waited = wait_words(run)
    idle = figure(run.result, "throughput", "teacher_idle_share")
    whose = "teachers were idle for {} of their" if dig(run.result, "fleet") else "teacher was idle for {} of the same"
    idled = "" if idle is None else f"The {whose.format(percent(idle, 0))} time."
    return [*sentences, *(sentence for sentence in (waited, idled, together(run)) if sentence)]


def together(run: Run) -> str:
    """How many students trained together, and what they survived; empty where one trained alone."""
    number, lost = figure(run.result, "students", "together"), figure(run.result, "students", "lost")
    if number is None:
        return ""
    course = [each for each in listed(run.result, "students", "course") if isinstance(each, list) and len(each) == 2]
    if len(course) > 1:
        parts = [f"{count} up to step {grouped(until)}" for (_, count), (until, _) in pairwise(course)]
        words = f"Students that trained it together: {', '.join(parts)}, then {course[-1][1]}."
    else:
        words = f"{number:.0f} students trained it together." if number > 1 else ""
    if lost:
        times = "Once one of them was" if lost == 1 else f"{lost:.0f} times one of them was"
        words += f" {times} lost, and all went on from the newest checkpoint: nothing else was."
    return words


def costs(run: Run) -> Pairs:
    """Wall time and energy, each by phase, and where the figures of energy come from."""
    pairs: Pairs = []
    if (wall := figure(run.result, "wall_s")) is not None:
        pairs.append(("Whole run", seconds(wall)))
    times, used = dig(run.result, "phase_s"), dig(run.result, "energy", "by_phase")
    names = [name for phases in (used, times) if isinstance(phases, Mapping) for name in phases]
    for name in dict.fromkeys(names):
        took, joules = figure(times, name), figure(used, name)
        told = [*([seconds(took)] if took is not None else []), *([energy(joules)] if joules is not None else [])]
        pairs += [(phase_words(str(name)), ", ".join(told))] if told else []
    joules, source = figure(run.result, "energy", "joules"), dig(run.result, "energy", "source")
    if joules is not None:
        pairs.append(("Energy", f"{energy(joules)} ({source or 'source not recorded'})"))
    elif source:
        pairs.append(("Energy", str(source)))
    return pairs


def exported(run: Run) -> str:
    """What was exported and how it was verified."""
    onnx = dig(run.result, "export", "onnx")
    if not isinstance(onnx, Mapping):
        return ""
    details = []
    if (length := figure(onnx, "bytes")) is not None:
        details.append(size(length))
    if (latency := figure(onnx, "latency_ms")) is not None:
        details.append(f"{milliseconds(latency)} a call")
    size_and_pace = f" ({', '.join(details)})" if details else ""
    text = f"{onnx.get('file', 'student.onnx')}{size_and_pace} holds the student as ONNX."
    samples, agreement = figure(onnx, "samples"), figure(onnx, "agreement")
    if samples is not None:
        text += f" It was run on {grouped(samples)} real samples beside the student in PyTorch"
        if agreement is not None:
            text += f": the same class for {'all' if agreement == 1 else percent(agreement)} of them"
        if (difference := figure(onnx, "largest_difference")) is not None:
            text += f", scores at most {difference:.1e} apart"
        text += "."
    return text


def data(run: Run) -> Pairs:
    """The data set and its splits."""
    found = dig(run.result, "data")
    pairs: Pairs = [("Data set", str(dig(found, "name")))] if dig(found, "name") else []
    for key, label in (("train", "Training"), ("validation", "Validation"), ("test", "Test")):
        if (number := figure(found, key)) is not None:
            pairs.append((label, f"{grouped(number)} samples"))
    if shape := listed(found, "shape"):
        pairs.append(("Sample", f" {TIMES} ".join(str(side) for side in shape)))
    if classes := [str(each) for each in listed(found, "classes")]:
        shown = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
        pairs.append(("Classes", f"{len(classes)}: {shown}"))
    if skipped := figure(found, "skipped"):
        pairs.append(("Skipped", f"{grouped(skipped)} unreadable samples"))
    return pairs


def mapping(run: Run, key: str) -> Pairs:
    """A flat section of the result (``environment``, ``digests``) as it is."""
    found = dig(run.result, key)
    if not isinstance(found, Mapping):
        return []
    return [(str(name).replace("_", " "), _plain(value)) for name, value in found.items() if value is not None]


def warnings(run: Run) -> list[str]:
    """The result's warnings, or those told so far."""
    told = [event.get("message") for event in run.events if event["event"] == "Warned"]
    found = listed(run.result, "warnings") if run.result is not None else told
    return list(dict.fromkeys(str(each) for each in found))


def _progress(run: Run) -> str:
    begun: list[Phase] = [phase for phase in run.phases.values() if not phase.finished]
    if not begun:
        done = ", ".join(name for name, phase in run.phases.items() if phase.steps)  # a given teacher has none
        return f"Finished so far: {done}." if done else "Nothing was trained so far."
    phase = begun[-1]
    steps = f"step {phase.step:,} of {phase.steps:,}" if phase.steps else f"step {phase.step:,}"
    return f"It got to {steps} of the phase “{phase_words(phase.name).lower()}”. The curves below show what there is."


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

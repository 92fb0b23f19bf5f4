"""A wrong recipe: told by check and run alike, before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import Call, nothing_left, refused


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sed: 1", ["tiny.yaml:12", "unknown key 'sed'", "did you mean 'seed'"]),
        ("seed: lots", ["tiny.yaml:12", "'seed'", "not 'lots'"]),
        ("seed: [1", ["tiny.yaml:13", "broken YAML"]),
        ("name: tiny", ["tiny.yaml:12", "'name' is written twice"]),
        (
            "export: !!python/object/apply:os.mkdir [sprung]",
            ["tiny.yaml:12", "python/object/apply:os.mkdir", "refused"],
        ),
        ("control: {seeds: 0, seeds: 1}", ["is written twice"]),
        ("checkpoint: {every_s: .nan}", ["'checkpoint.every_s'", "finite"]),
    ],
)
def test_a_wrong_recipe(verb: str, text: str, words: list[str], tiny: Path, call: Call) -> None:
    """A recipe that can't be read is refused with its line and key, and nothing in it is executed."""
    tiny.write_text(tiny.read_text() + text + "\n")
    refused(call(verb, tiny), *words)
    nothing_left(Path.cwd())


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", ["--set seed", "section.key=value"]),
        ("=3", ["section.key=value"]),
        ("seed=", ["'seed'"]),
        ("seed={", ["--set seed={", "broken YAML"]),
        ("name.x=1", ["'name' is a value, not a section"]),
        ("student.train.epoch=3", ["unknown key 'student.train.epoch'", "did you mean 'epochs'"]),
        ("data.source.train=nowhere.parquet", ["'data.source.train'", "nowhere.parquet does not exist"]),
        ("data.source.train=${NOT_SET_AT_ALL}/x", ["'data.source.train'", "variable NOT_SET_AT_ALL is not set"]),
        ("data.source.image=picture", ["tiny.parquet has no column 'picture' (data.source.image)"]),
        ("data.source.label=class", ["tiny.parquet has no column 'class' (data.source.label)"]),
        ("teacher.model.weights=nowhere.pt", ["'teacher.model.weights'", "nowhere.pt does not exist"]),
        ("teacher.model.arch=mine.py:make", ["'teacher.model.arch'", "mine.py does not exist"]),
        ("compute.device=tpu", ["'compute.device'", "not 'tpu'"]),
        ("data.crop_px=[9, 9]", ["data.crop_px (9, 9) is larger than the images"]),
    ],
)
def test_a_wrong_override(verb: str, override: str, words: list[str], tiny: Path, call: Call) -> None:
    """A ``--set`` that makes no sense is refused by its key, by check and run alike, and leaves no folder."""
    refused(call(verb, tiny, "--set", override), *words)
    nothing_left(Path.cwd())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--workers", "3-1"], "'--workers': 3-1: the most comes last; did you mean 1-3?"),
        (["--workers", "0-2"], "'--workers': 0-2: one is the least; for no fleet at all write 0"),
        (["--workers", "-1"], "'--workers': '-1' is no number of workers: write 3, or 1-4"),
        (["--students", "0"], "'--students': 0: one is the least"),
        (["--students", "2"], "tiny.yaml: fleet.students: 2 students share"),
    ],
)
def test_a_wrong_number(words: list[str], told: str, tiny: Path, call: Call) -> None:
    """A number that makes no sense is refused by the option that was typed; no folder is made."""
    said = call("run", tiny, *words)
    refused(said, told)
    assert "--set" not in said.err
    nothing_left(Path.cwd())


@pytest.mark.parametrize("verb", ["check", "run", "resume", "evaluate", "export", "report"])
def test_what_is_not_there(verb: str, call: Call) -> None:
    """A missing recipe, or a folder that holds no run, is refused by name; no folder is made."""
    refused(call(verb, "nowhere"), "nowhere")
    nothing_left(Path.cwd())
    Path("empty").mkdir()
    refused(call(verb, "empty"), "empty")
    assert list(Path("empty").iterdir()) == []


@pytest.mark.parametrize("words", [["run"], ["fly"], ["run", "x", "--fast"], ["evaluate", "x", "--split", "train"]])
def test_a_wrong_command_line(words: list[str], call: Call) -> None:
    """An unknown verb, option or choice, or a missing argument, is a usage error."""
    said = call(*words)
    refused(said, "Usage: ")

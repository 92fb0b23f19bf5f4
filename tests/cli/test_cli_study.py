"""``stillhouse study`` and ``stillhouse family``, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from stillhouse.cli.main import cli

RECIPE = """
data: {source: {kind: digits}}
teacher: {model: {arch: vgg}, train: {epochs: 1}}
student: {model: {arch: random_graph, options: {top: {kind: erdos_renyi, nodes: 5}, depth: [1, 1]}}}
"""
EVENTS = [
    {"event": "TrialBegun", "trial": 0, "point": {"objective.kd.temperature": 3.456}, "costs": {"params": 1234.0}},
    {"event": "TrialReached", "trial": 0, "rung": 0, "epochs": 1, "members": [0.5], "trained_epochs": 1},
    {"event": "TrialBegun", "trial": 1, "point": {"objective.kd.temperature": 2.0}, "costs": {"params": 1200.0}},
    {"event": "TrialReached", "trial": 1, "rung": 0, "epochs": 1, "members": [0.4], "trained_epochs": 1},
    {"event": "TrialReached", "trial": 0, "rung": 1, "epochs": 4, "members": [0.7, 0.8], "trained_epochs": 7},
    {"event": "TrialEnded", "trial": 1, "why": "others were better", "failed": False},
]
FOUND = [
    {"event": "FinalistTrained", "trial": 0, "member": 1, "accuracy": 0.81, "params": 1230},
    {"event": "StudentFound", "trial": 0, "member": 1},
]


def called(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, [*map(str, words)])
    return done.exit_code, done.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A search, as far as its events tell."""
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "search.db").touch()
    (run / "events.jsonl").write_text("".join(json.dumps({"time": 1, **each}) + "\n" for each in EVENTS))
    return run


def test_searches_are_listed(folder: Path) -> None:
    """Trials, what was spent, the best one, and whether it is finished."""
    code, words = called("study", "ls", folder.parent)
    assert code == 0 and words.splitlines()[1].split("  ")[0] == str(folder)
    assert "9" in words and "75.0 % after 4 (trial 0)" in words and "unfinished" in words
    assert called("study", "ls", folder.parent.parent) == (0, f"no searches in {folder.parent.parent}\n")


def test_trials_are_shown(folder: Path) -> None:
    """The longest trained first, with what each is."""
    code, words = called("study", "show", folder)
    head, first, second = words.splitlines()
    assert code == 0 and head.split() == ["trial", "epochs", "correct", "parameters", "kd.temperature", "end"]
    assert first.split() == ["0", "4", "75.0", "%", "1.23", "k", "3.46"]
    assert second.split() == ["1", "1", "40.0", "%", "1.20", "k", "2", "others", "were", "better"]


def test_as_many_as_are_wanted_and_what_differs(folder: Path) -> None:
    """Keys are as long as tells them apart; what is the same for all stands below, once."""
    nodes = {"a.top.nodes": 3, "a.bottom.nodes": 2, "a.operation": "conv"}
    points = [nodes, {**nodes, "a.top.nodes": 4}, {**nodes, "a.bottom.nodes": 1}]
    begun = [{"event": "TrialBegun", "trial": at, "point": point, "costs": {}} for at, point in enumerate(points)]
    (folder / "events.jsonl").write_text("".join(json.dumps({"time": 1, **each}) + "\n" for each in begun))
    lines = called("study", "show", folder, "--top", 2)[1].splitlines()
    assert lines[0].split() == ["trial", "epochs", "correct", "parameters", "top.nodes", "bottom.nodes"]
    assert [line.split() for line in lines[1:3]] == [["0", "3", "2"], ["1", "4", "2"]]
    assert lines[3:] == ["and 1 more; --top 3 shows them", "all: a.operation: conv"]


def test_the_best_is_told(folder: Path) -> None:
    """On the way, and with its recipe at the end."""
    code, words = called("study", "best", folder)
    assert code == 0 and words.splitlines()[0] == "trial 0: 75.0 % of the validation samples after 4 epochs"
    assert "  objective.kd.temperature: 3.46" in words and "best.yaml" not in words
    assert "front by parameters: trial 0 1.23 k 75.0 %" in words and "the search is not over" in words
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps({"time": 2, **each}) + "\n" for each in FOUND)
    (folder / "best.yaml").touch()
    words = called("study", "best", folder)[1]
    assert "finalist 0-1: 81.0 %, 1,230 parameters  <- the student" in words
    assert f"stillhouse run {folder}/best.yaml makes the student again" in words


def test_a_search_without_a_trial(folder: Path) -> None:
    """Nothing is there yet: that is said, without an error."""
    (folder / "events.jsonl").write_text("")
    assert called("study", "best", folder) == (0, "no trial has come to a rung yet\n")
    assert called("study", "show", folder)[0] == 0
    assert "unfinished" in called("study", "ls", folder.parent)[1]


def test_members_are_drawn(tmp_path: Path) -> None:
    """Each with its graphs; those that are the same are said to be."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    code, words = called("family", "show", path, "--members", 3)
    lines = words.splitlines()
    assert code == 0 and sum(line.startswith("seed") for line in lines) == 3
    assert "15 conv operations" in lines[0]
    assert lines[1].startswith("  stage 1, cell 0: from the stem; operations 3 (")
    one = called("family", "show", path, "--members", 2, "--set", "student.model.options.top.probability=1")[1]
    assert one.splitlines()[-1] == "seed 1: the graphs of seed 0"


def test_what_is_no_search_or_family_is_refused(tmp_path: Path, folder: Path) -> None:
    """With a word, and exit code 2 where a person mistook something."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    (folder / "search.db").unlink()
    for words in (("study", "show", folder), ("family", "show", path, "--set", "student.model={arch: mlp}")):
        with pytest.raises(
            Exception, match=r"is no run that searches|members of a random_graph are drawn here"
        ) as error:
            CliRunner().invoke(cli, [*map(str, words)], catch_exceptions=False)
        assert error.value.exit_code == 2  # type: ignore[attr-defined]

"""A run's numbers on loopback: from events to a page of Prometheus' text format, over real HTTP."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from commandline import Call, nothing_left, refused

from stillhouse.cli.metrics import Metrics
from stillhouse.cli.metrics_server import served
from stillhouse.foundation import events as e

RECIPE = {
    "name": "tiny",
    "data": {"source": {"kind": "digits"}},
    "teacher": {"model": {"arch": "mlp", "options": {"hidden": [16]}}, "train": {"epochs": 1, "batch_size": 400}},
    "student": {"model": {"arch": "mlp", "options": {"hidden": [8]}}, "train": {"epochs": 1, "batch_size": 400}},
    "control": {"seeds": 0},
}


def measured(seconds: float, *workers: e.WorkerMeasured, **totals: int) -> e.FleetMeasured:
    return e.FleetMeasured(seconds, workers, 900, 600, 300, 1000, 250, 750, True, 0.125, False, 64, totals)


def progress(step: int, **counts: int) -> e.Progress:
    return e.Progress("student", step, step / 4, {"total": 0.5 / step}, 0.1, {"step": 1.0}, 128, counts)


EVENTS = [
    measured(2.0, e.WorkerMeasured("local-1", "busy", 100, 0.01, 2, 0.9), questions_reissued=2, workers_lost=0),
    progress(1, hits=10, misses=30),
    e.FleetChanged("left", "local-1", "killed by SIGKILL", {}, 0.1),
    progress(2, hits=5, misses=0),
    e.GroupMeasured("student", 2.0, (e.StudentMeasured("here", 4711, "training", 9, 64.0, 0.5),)),
    measured(4.0, e.WorkerMeasured('b"\\', "idle", 200, 0.01, 0, 0.4), questions_reissued=3, workers_lost=1),
]  # fmt: skip
WANTED = (
    'stillhouse_workers{state="idle"} 1', 'stillhouse_workers{state="busy"} 0', 'stillhouse_views_per_second 50.0',
    'stillhouse_worker_views_total{worker="local-1"} 100', 'stillhouse_worker_views_total{worker="b\\"\\\\"} 200',
    "stillhouse_leases_reissued_total 3", "stillhouse_workers_lost_total 1", "stillhouse_starved_share 0.125",
    "stillhouse_buffered_views 300", "stillhouse_store_hits_total 15", "stillhouse_store_misses_total 30",
    'stillhouse_step{phase="student"} 2', 'stillhouse_loss{phase="student"} 0.25',
    "stillhouse_student_views_total 64",
    'stillhouse_students{state="training"} 1', 'stillhouse_student_step{student="1"} 9',
    'stillhouse_student_samples_per_second{student="1"} 64.0', 'stillhouse_student_starved_share{student="1"} 0.5',
)  # fmt: skip


def written(folder: Path) -> Path:
    """The recipe as a file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def get(port: int, path: str = "/metrics") -> tuple[str, str]:
    """The type and the text of a page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def port_in(words: str) -> int:
    found = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", words)
    assert found is not None, words
    return int(found[1])


def test_events_become_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    """What a scraper gets over HTTP is what the events add up to, typed and explained, each line in its format."""
    with served(0) as (hear,):
        port = port_in(capsys.readouterr().out)
        assert get(port)[1] == ""
        for event in EVENTS:
            hear(event)
        kind, page = get(port)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(port, "/")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    lines = page.splitlines()
    assert [each for each in WANTED if each not in lines] == []
    form = re.compile(r'(# (HELP|TYPE) stillhouse_\w+ .+|stillhouse_\w+(\{\w+="([^"\\]|\\.)*"\})? -?[\d.e+-]+)')
    assert [each for each in lines if not form.fullmatch(each)] == []
    names = re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE)
    assert len(dict(names)) == len(names)
    assert all((kind == "counter") == name.endswith("_total") for name, kind in names)
    with pytest.raises(OSError):
        get(port)


def test_without_a_fleet_it_is_not_told() -> None:
    """A run without workers and store tells its training, and no zeros about what it doesn't have."""
    metrics = Metrics()
    metrics.hear(progress(3))
    assert {line.split("{")[0] for line in metrics.text().splitlines() if line[0] != "#"} == {
        "stillhouse_step", "stillhouse_epoch", "stillhouse_loss",
    }  # fmt: skip


def test_nobody_else_is_listened_to(capsys: pytest.CaptureFixture[str]) -> None:
    """The server listens at 127.0.0.1 and at no other address of the machine."""
    with served(0):
        port = port_in(capsys.readouterr().out)
        tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
        rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
        listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]
        if rows:
            assert listening == [f"0100007F:{port:04X}"]
        with socket.socket() as other, pytest.raises(OSError):
            other.connect(("127.0.0.2", port))


def test_a_port_in_use(call: Call, tmp_path: Path) -> None:
    """A port that somebody else has is told before anything is made or trained, with what to do."""
    recipe = written(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(call("run", recipe, "--metrics-port", port), f"--metrics-port {port}", "in use", "another port")
    nothing_left(tmp_path / "here")
    refused(call("run", recipe, "--metrics-port", 70000), "--metrics-port", "70000")
    nothing_left(tmp_path / "here")


def test_a_run_with_metrics(call: Call, tmp_path: Path) -> None:
    """Whatever goes on for long tells where its metrics are, begun or resumed; nobody listens when it is over."""
    recipe = written(tmp_path)
    stored = ("--set", f"store.path={tmp_path / 'labels'}")
    begun = (("teach", recipe, "--out", "taught", *stored), ("run", recipe, "--out", "there", *stored))
    for words in (*begun, ("teach", "taught"), ("resume", "there")):
        said = call(*words, "--metrics-port", 0)
        assert said.code == 0, said
        with pytest.raises(OSError):
            get(port_in(said.out))

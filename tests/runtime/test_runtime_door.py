"""Who comes in by the front door: workers started by hand or through a proxy, and where the door is."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stillhouse.runtime.backend import Answer, Hello, Leaving, Left
from stillhouse.runtime.local.backend import LocalBackend
from stillhouse.runtime.local.door import Door
from stillhouse.runtime.work import Lease

from .house import LOAN, PROOF_MAX, House, opened, said_at_the_end

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_join_work_leave(house: House, by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """A worker started by hand joins, works, says on Ctrl-C that it leaves, and ends with code 0 when dismissed."""
    worker = by_hand(house.backend.address)
    hello = house.first()
    assert isinstance(hello, Hello) and hello.facts["pid"] == worker.pid
    house.backend.send(hello.worker, LOAN, b"wait 0.3")
    house.backend.poll(0.1)
    worker.send_signal(signal.SIGINT)
    leaving, answer = house.stage.until(lambda heard: len(heard) == 2)
    assert leaving == Leaving(hello.worker, "asked to leave (SIGINT)")
    assert isinstance(answer, Answer)
    house.backend.dismiss(hello.worker, "drained", kill=False)
    assert house.first() == Left(hello.worker, "drained")
    code, words = said_at_the_end(worker)
    assert code == 0 and "Traceback" not in words
    came, loaded, answers, _, ends = words.splitlines()
    assert came == f"worker joins the run as {hello.worker}, beside 0 other workers" and loaded.endswith("questions")
    assert answers == "worker was let in, and answers" and ends == "worker ends: drained"


def test_who_is_one_too_many_is_told(by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """Whoever joins beside as many as the run keeps hears that one of them may be let go."""
    with opened(keeps=1) as house:
        house.stage.ready()
        worker = by_hand(house.backend.address)
        house.first()
        house.backend.close()
        assert "beside 1 other worker; the run keeps 1 (fleet.workers)" in said_at_the_end(worker)[1]


def test_the_second_ctrl_c_ends_at_once(house: House, by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """In the middle of an answer, a second Ctrl-C ends a worker with the signal's exit code."""
    worker = by_hand(house.backend.address)
    hello = house.first()
    assert isinstance(hello, Hello)
    house.backend.send(hello.worker, LOAN, b"wait 30")
    house.backend.poll(0.1)
    worker.send_signal(signal.SIGINT)
    assert isinstance(house.first(), Leaving)
    worker.send_signal(signal.SIGINT)
    assert house.first() == Left(hello.worker, "asked to leave (SIGINT)")
    assert said_at_the_end(worker)[0] == 130


def test_turned_away(house: House, by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """A worker that is dismissed in reply to its hello prints the reason and exits with code 2."""
    worker = by_hand(house.backend.address)
    hello = house.first()
    assert isinstance(hello, Hello)
    house.backend.dismiss(hello.worker, "its teacher is another one", kill=False, refused=True)
    assert house.first() == Left(hello.worker, "its teacher is another one")
    code, words = said_at_the_end(worker)
    assert code == 2 and "its teacher is another one" in words


def test_killed_from_afar(house: House, by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """A joined worker that is killed has left at once; cut off, it ends in the middle of its work."""
    worker = by_hand(house.backend.address)
    hello = house.first()
    assert isinstance(hello, Hello)
    house.backend.send(hello.worker, LOAN, b"wait 30")
    house.backend.poll(0.1)
    house.backend.dismiss(hello.worker, "silent", kill=True)
    assert house.backend.poll(0) == [Left(hello.worker, "silent")]
    assert said_at_the_end(worker)[0] == 1


def test_killed_where_it_runs(house: House, by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """Of a joined worker that dies elsewhere only the end of its connection is known, and told in words."""
    worker = by_hand(house.backend.address)
    assert isinstance(house.first(), Hello)
    worker.kill()
    left = house.first()
    assert isinstance(left, Left) and left.why.startswith("its connection ended")  # or was reset


def test_the_run_ends(house: House, by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """When the run is over, a joined worker that is idle says so and exits with code 0."""
    worker = by_hand(house.backend.address)
    house.first()
    house.backend.close()
    code, words = said_at_the_end(worker)
    assert code == 0 and "the run is over" in words


def test_it_can_not_load(by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """Of a joining worker that never got ready the driver hears nothing, and a person does."""
    with opened(loading="refuses") as house:
        worker = by_hand(house.backend.address)
        assert f"process {worker.pid}" in house.warning() and "weights are not here" in house.warned[0]


def test_nobody_listens(by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """Joining where no run is says which address it was."""
    code, words = said_at_the_end(by_hand("/tmp/no-such-run/door"))
    assert code == 1 and "no run listens at /tmp/no-such-run/door" in words


def test_a_name_that_nobody_waits_for(house: House, by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """Calling itself like a worker that is not awaited, connected or unknown, gets nobody in."""
    (hello,) = house.stage.ready()
    worker = by_hand(house.backend.address, hello.worker)
    assert "no worker of that name" in house.warning()
    code, words = said_at_the_end(worker)
    assert code == 2 and "no worker of that name" in words


def test_what_a_worker_shows(by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """What it shows of its work comes with its hello, longer than a header may be; longer than expected is refused."""
    with opened(proof=PROOF_MAX) as house:
        (hello,) = house.stage.ready()
        assert bytes(hello.proof) == b"p" * PROOF_MAX
        name = house.backend.start()
        (other,) = house.stage.until(bool)
        assert isinstance(other, Hello) and other.worker == name, "the bound is of each"
    with opened(proof=PROOF_MAX + 1) as house:
        by_hand(house.backend.address)
        assert f"sent a body of {PROOF_MAX + 1} bytes, where at most {PROOF_MAX}" in house.warning()


@contextmanager
def proxy(address: str, path: Path) -> Iterator[str]:
    """What ssh does with a forwarded socket: bytes pass both ways, descriptors do not."""

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(10_000):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def forward() -> None:
        near, _ = listening.accept()
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        far.connect(address)
        back = threading.Thread(target=pass_on, args=(far, near))
        with near, far:
            back.start()
            pass_on(near, far)
            back.join()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=forward)
        thread.start()
        yield str(path)
        thread.join()


def test_through_a_forwarded_socket(
    house: House, by_hand: Callable[..., subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where no descriptor can travel, a worker joins all the same, and its answers come inline."""
    with tempfile.TemporaryDirectory() as folder, proxy(house.backend.address, Path(folder) / "s") as forwarded:
        worker = by_hand(forwarded)
        hello = house.first()
        assert isinstance(hello, Hello)
        for number in range(4):
            house.backend.send(hello.worker, Lease("student", number, 1), b"size 512000 5")
        heard = house.stage.until(lambda reports: len(reports) == 4)
        assert all(bytes(each.payload) == b"\5" * 512_000 for each in heard if isinstance(each, Answer))
        assert "stillhouse-ring" not in Path(f"/proc/{worker.pid}/maps").read_text()
        house.backend.close()
        assert said_at_the_end(worker)[0] == 0


def test_a_long_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the temporary folder's name is too long for a socket, another one is found."""
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    door = Door()
    assert Path(door.address).is_socket() and len(door.address) < 104
    door.close()


def test_doors_of_killed_runs_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new run removes what a killed one left, and nothing of a living one or of others."""
    with tempfile.TemporaryDirectory() as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        code = (
            "import os; from stillhouse.runtime.local.door import Door; print(Door().address, flush=True); os._exit(0)"
        )
        dead = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        assert Path(dead).is_socket()
        unrelated = Path(place) / "stillhouse-notes"
        unrelated.mkdir()
        living = Door()
        last = Door()
        assert not Path(dead).parent.exists()
        assert Path(living.address).is_socket() and unrelated.is_dir()
        living.close()
        last.close()


def test_job_reaches_the_worker_whole(by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """A job of megabytes is told as it is."""
    job = {"text": "ä\n" * 1_000_000}
    backend = LocalBackend(job, None, print)
    code = (
        "import sys, json; from stillhouse.runtime.local.serving import *; serve(sys.argv[1], "
        "lambda job: Served({'length': len(job['text']), 'begin': job['text'][:2]}, 1, bytes))"
    )
    with subprocess.Popen([sys.executable, "-c", code, backend.address], stderr=subprocess.DEVNULL):
        (hello,) = backend.poll(20)
        backend.close()
    assert isinstance(hello, Hello)
    assert json.dumps([hello.facts["length"], hello.facts["begin"]]) == json.dumps([2_000_000, "ä\n"])

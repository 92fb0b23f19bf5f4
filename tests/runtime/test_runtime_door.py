"""Who comes in by the front door: workers started by hand or through a proxy, strangers, and talkers of nonsense."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.errors import UserError
from stillhouse.runtime.backend import Answer, Hello, Leaving, Left, Report
from stillhouse.runtime.local.backend import LocalBackend
from stillhouse.runtime.local.door import Door, connected
from stillhouse.runtime.local.frames import HEADER_BYTES_MAX, PROTOCOL, pack
from stillhouse.runtime.local.serving import serve
from stillhouse.runtime.work import Lease

from .acting import Role
from .stages import COMMAND, Stage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LOAN = Lease("student", 0, 1)
HELLO = {"do": "hello", "protocol": PROTOCOL, "stillhouse": "0", "pid": 1, "host": "h", "fds": True, "name": ""}
READY = {"do": "ready", "facts": {}, "slots": 1}
PROOF_MAX = 2 * HEADER_BYTES_MAX


class House:
    """A run that only waits for guests, and what it warned of."""

    def __init__(self, **role: Any) -> None:
        self.warned: list[str] = []
        self.backend = LocalBackend(Role(**role)._asdict(), COMMAND, self.warned.append, PROOF_MAX)
        self.stage = Stage(self.backend, lambda _: None, lambda _: None, time.monotonic)

    def first(self) -> Report:
        """The next report, alone."""
        (report,) = self.stage.until(bool)
        return report

    def warning(self) -> str:
        """The one warning, waited for."""
        for _ in range(100):
            assert self.backend.poll(0.05) == []
            if self.warned:
                break
        (message,) = self.warned
        return message


@contextmanager
def opened(**role: Any) -> Iterator[House]:
    house = House(**role)
    try:
        yield house
    finally:
        house.backend.close()


@pytest.fixture
def house() -> Iterator[House]:
    with opened() as one:
        yield one


@pytest.fixture
def by_hand() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts workers as a person does in another shell."""
    started: list[subprocess.Popen[str]] = []

    def start(address: str, *name: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen([*COMMAND, address, *name], stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def said_at_the_end(worker: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr of a worker."""
    _, words = worker.communicate(timeout=10)
    return worker.returncode, words


def knock(house: House, *messages: dict[str, Any]) -> socket.socket:
    """A guest of our own making."""
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    guest.connect(house.backend.address)
    guest.settimeout(5)
    for message in messages:
        guest.sendall(pack(message))
    return guest


def hung_up_on(guest: socket.socket) -> bool:
    """Whether nothing more comes."""
    with guest:
        try:
            while guest.recv(65536):
                pass
        except ConnectionResetError:
            return True
        return True


def test_join_work_leave(house: House, by_hand: Callable[..., subprocess.Popen[str]]) -> None:
    """A worker started by hand joins, works, says on Ctrl-C that it leaves, and ends with code 0 when dismissed."""
    worker = by_hand(house.backend.address)
    hello = house.first()
    assert isinstance(hello, Hello) and hello.facts["pid"] == worker.pid
    house.backend.send(hello.worker, LOAN, b"wait 0.3")
    house.backend.poll(0.1)
    worker.send_signal(signal.SIGINT)
    leaving, answer = house.stage.until(lambda heard: len(heard) == 2)
    assert leaving == Leaving(hello.worker, "got SIGINT")
    assert isinstance(answer, Answer)
    house.backend.dismiss(hello.worker, "drained", kill=False)
    assert house.first() == Left(hello.worker, "drained")
    code, words = said_at_the_end(worker)
    assert code == 0 and "drained" in words and "Traceback" not in words


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
    assert house.first() == Left(hello.worker, "got SIGINT")
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


def test_another_protocol(house: House) -> None:
    """Who speaks another protocol is told to install the same stillhouse."""
    guest = knock(house, {**HELLO, "protocol": PROTOCOL + 1})
    assert "install the same stillhouse" in house.warning()
    assert b"install the same stillhouse" in guest.recv(4096)
    assert hung_up_on(guest)


NONSENSE = {
    "huge header": struct.pack("!II", 2**32 - 1, 0),
    "body before hello": pack(HELLO, 100),
    "not JSON": struct.pack("!II", 4, 0) + b"\x80\x04K.",
    "deep": struct.pack("!II", 10**5, 0) + b"[" * 10**5,
    "no hello": pack({"do": "answer", "lease": ["s", 0, 1]}),
    "hello of another kind": pack({"do": "hello", "protocol": [1]}),
}


@pytest.mark.parametrize("words", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_at_the_door(house: House, words: bytes) -> None:
    """Who begins with nonsense is hung up on with a warning; the next guest comes in."""
    guest = knock(house)
    guest.sendall(words)
    assert house.warning()
    assert hung_up_on(guest)
    with knock(house, HELLO, READY):
        assert isinstance(house.first(), Hello)


RULES = {
    "an answer to nothing": {"do": "answer", "lease": ["s", 9, 1]},
    "an answer without a lease": {"do": "answer"},
    "an answer beyond its slot": {"do": "answer", "lease": list(LOAN), "nbytes": 2**40},
    "an answer that took no time that there is": {"do": "answer", "lease": list(LOAN), "spent_s": -1.0},
    "an answer that took longer than any number": {"do": "answer", "lease": list(LOAN), "spent_s": 10**400},
    "an answer of negative length": {"do": "answer", "lease": list(LOAN), "nbytes": -1},
    "ready twice": READY,
    "an unknown verb": {"do": "dance"},
    "a failure that is no text": {"do": "failure", "lease": list(LOAN), "why": 5},
}


@pytest.mark.parametrize("message", RULES.values(), ids=RULES)
def test_a_worker_that_breaks_the_rules(house: House, message: dict[str, Any]) -> None:
    """A worker that sends what makes no sense loses its connection, with a reason; the others go on."""
    (other,) = house.stage.ready()
    with knock(house, HELLO, READY) as guest:
        rogue = house.first()
        assert isinstance(rogue, Hello)
        house.backend.send(rogue.worker, LOAN, b"echo x")
        guest.sendall(pack(message))
        left = house.first()
        assert isinstance(left, Left) and left.worker == rogue.worker and left.why.startswith("sent ")
    house.backend.send(other.worker, LOAN, b"echo x")
    answer = house.first()
    assert isinstance(answer, Answer) and answer[:3] == (other.worker, LOAN, b"x")


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


@pytest.mark.parametrize("who", [{"pid": "1"}, {"pid": -1}, {"pid": True}, {"host": 7}, {"stillhouse": []}])
def test_who_makes_no_sense(house: House, who: dict[str, Any]) -> None:
    """A worker whose process number, machine or version can be none never gets ready."""
    with knock(house, {**HELLO, **who}, READY):
        assert "left before it was ready: sent 'hello' with" in house.warning()


@pytest.mark.parametrize("ready", [{"slots": 0}, {"slots": 10**9}, {"slots": "2"}, {"facts": []}])
def test_facts_that_make_no_sense(house: House, ready: dict[str, Any]) -> None:
    """A worker without sensible slots and facts never gets ready."""
    with knock(house, HELLO, {**READY, **ready}):
        assert "left before it was ready: sent" in house.warning()


def test_a_child_that_breaks_the_rules() -> None:
    """A worker of our own that talks nonsense is ended, with that as the reason."""
    code = (
        "import socket, sys, time; from stillhouse.runtime.local.frames import pack; "
        "guest = socket.socket(socket.AF_UNIX); guest.connect(sys.argv[1]); "
        f"guest.sendall(pack({{**{HELLO}, 'name': sys.argv[2]}}) + pack({{'do': 'dance'}})); time.sleep(60)"
    )
    backend = LocalBackend({}, [sys.executable, "-c", code], print)
    name = backend.start()
    reports = backend.poll(20)
    backend.close()
    assert reports == [Left(name, "sent 'dance', which is not expected now")]


def test_silent_guests_stop_nobody(house: House) -> None:
    """Guests that say nothing, or half a word, keep nobody from working; who only looks in is no warning."""
    guests = [knock(house) for _ in range(20)]
    for guest in guests[:10]:
        guest.sendall(b"\0\0")
    knock(house).close()
    (worker,) = house.stage.ready()
    house.backend.send(worker.worker, LOAN, b"echo x")
    assert isinstance(house.first(), Answer)
    for guest in guests:
        guest.close()
    assert house.backend.poll(0.1) == []
    assert house.warned == []


STRANGER = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
guest.settimeout(5)
guest.connect(sys.argv[1])
try:
    sys.exit(len(guest.recv(100)))
except ConnectionResetError:
    sys.exit(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_hung_up_on(house: House) -> None:
    """The folder keeps other users out; should it be opened, they are hung up on and told in a warning."""
    folder = Path(house.backend.address).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    command = [sys.executable, "-I", "-S", "-c", STRANGER, house.backend.address]
    assert b"Permission denied" in subprocess.run(command, check=False, capture_output=True).stderr
    folder.chmod(0o755)
    Path(house.backend.address).chmod(0o777)
    with subprocess.Popen(command) as stranger:
        assert "user 65534 tried to join" in house.warning()
        assert stranger.wait(10) == 0


@pytest.mark.parametrize("credentials", [True, False], ids=["of the peer", "of the file"])
def test_nobody_joins_another_user(house: House, monkeypatch: pytest.MonkeyPatch, credentials: bool) -> None:
    """Where another user listens nobody goes in: not a byte is said, and whose door it is is told."""
    if not credentials:
        monkeypatch.delattr(socket, "SO_PEERCRED")
    connected(house.backend.address).close()
    listener = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: listener + 1)
    with pytest.raises(UserError, match=f"user {listener} listens at {house.backend.address}"):
        serve(house.backend.address, lambda job: pytest.fail("it was given a job"))
    monkeypatch.undo()
    assert house.backend.poll(0.1) == [] and house.warned == []


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

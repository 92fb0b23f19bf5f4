"""The local backend's own promises: how ends are told, nothing left behind, nobody outlives the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stillhouse.foundation.errors import FleetError
from stillhouse.runtime.backend import Answer, Failure, Hello, Left, Report
from stillhouse.runtime.local import backend as local_module
from stillhouse.runtime.local import ring
from stillhouse.runtime.local.backend import LocalBackend
from stillhouse.runtime.work import Lease

from .acting import LAST_WORDS, Role
from .stages import ACTOR, COMMAND, Stage, local

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def stage() -> Iterator[Stage]:
    with local(Role()) as opened:
        yield opened


def loan(number: int) -> Lease:
    return Lease("student", number, 1)


def alive(pid: int) -> bool:
    """Whether a process runs, or is stopped; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def group_of(pid: str) -> int | None:
    """The process group of a process that lives."""
    with suppress(ProcessLookupError):
        return os.getpgid(int(pid)) if alive(int(pid)) else None
    return None


def eventually(true: Callable[[], bool]) -> None:
    """Wait for something that must be so soon."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def shares_memory(pid: int) -> bool:
    """Whether a process has the ring mapped."""
    return "stillhouse-ring" in Path(f"/proc/{pid}/maps").read_text()


def answers(stage: Stage, worker: str, count: int, payload: bytes) -> list[bytes]:
    """What a worker answers to some loans."""
    for number in range(count):
        stage.backend.send(worker, loan(number), payload)
    heard = stage.until(lambda reports: len(reports) == count)
    return [bytes(each.payload) for each in heard if isinstance(each, Answer)]


def test_answers_go_through_shared_memory(stage: Stage) -> None:
    """A worker of this machine maps the ring, and no answer's bytes ever pass the socket."""
    (worker,) = stage.ready()
    member = stage.backend._members[worker.worker]  # type: ignore[attr-defined]
    member.channel.decoder.body_bytes_max = 0
    for _ in range(3):
        assert answers(stage, worker.worker, 4, b"size 512000 7") == [b"\7" * 512_000] * 4
    assert shares_memory(worker.facts["pid"])


def test_no_memory_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no memfd, nothing is mapped and answers come all the same."""
    monkeypatch.delattr(os, "memfd_create")
    with local(Role()) as stage:
        (worker,) = stage.ready()
        assert answers(stage, worker.worker, 4, b"size 512000 7") == [b"\7" * 512_000] * 4
        assert not shares_memory(worker.facts["pid"])


def test_longer_than_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that no slot holds goes inline, one that fits through memory, in turns."""
    monkeypatch.setattr(ring, "SLOT_BYTES_MAX", 4096)
    with local(Role()) as stage:
        (worker,) = stage.ready()
        for nbytes in (4096, 4097, 4096, 1_000_000, 1):
            assert answers(stage, worker.worker, 2, f"size {nbytes} 3".encode()) == [b"\3" * nbytes] * 2


def test_longer_than_any_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that can't be sent at all is a failure, not the end of its worker."""
    monkeypatch.delattr(os, "memfd_create")
    with local(Role()) as stage:
        (worker,) = stage.ready()
        stage.backend.send(worker.worker, loan(0), b"size 1073741825 0")
        (failure,) = stage.until(bool)
        assert isinstance(failure, Failure) and "longer than any reader takes" in failure.why
        assert answers(stage, worker.worker, 1, b"echo on") == [b"on"]


def test_the_ring_can_not_shrink() -> None:
    """A worker can't pull shared memory away under the run."""
    made = ring.make_ring(2)
    assert made is not None
    with pytest.raises(PermissionError):
        os.ftruncate(made.fd, 4096)
    made.close()


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "killed by SIGKILL"), (signal.SIGSEGV, "killed by SIGSEGV")]
)
def test_the_signal_is_told(stage: Stage, number: signal.Signals, words: str) -> None:
    """Why a worker left names the signal that ended it, within a moment."""
    (worker,) = stage.ready()
    begun = time.monotonic()
    os.kill(worker.facts["pid"], number)
    assert stage.left(worker.worker).why == words
    assert time.monotonic() - begun < 2


def test_exit_code_and_last_lines_are_told() -> None:
    """Why a worker left gives its exit code and no more than its last twenty lines."""
    with local(Role(loading="dies")) as stage:
        assert stage.left(stage.backend.start()).why == f"exit code 3: {LAST_WORDS}"
    backend = LocalBackend({}, ["sh", "-c", "seq 1 1000; exit 7"], print)
    backend.start()
    (left,) = backend.poll(5)
    backend.close()
    assert left.why == "exit code 7: " + "\n".join(map(str, range(981, 1001)))  # type: ignore[union-attr]


def test_what_a_child_says_does_not_grow_for_ever() -> None:
    """Of megabytes of output the end is kept, and it is told when the child ends badly long after."""
    said = "i=0; while [ $i -lt 4 ]; do seq 1 200000; i=$((i+1)); sleep 0.6; done; echo the end; exit 7"
    backend = LocalBackend({}, ["sh", "-c", said], print)
    name = backend.start()
    (child,) = [member.child for member in backend._members.values()]
    assert child is not None
    sizes, reports = list[int](), list[Report]()
    while not reports:
        reports = backend.poll(0.05)
        sizes.append(os.fstat(child._said.fileno()).st_size if not reports else 0)
    backend.close()
    assert 1_000_000 < max(sizes) < 4_200_000, "four times 1.3 MB were said"
    assert min(sizes[sizes.index(max(sizes)) :]) < 10_000
    (left,) = reports
    assert isinstance(left, Left) and left.worker == name
    assert left.why.startswith("exit code 7: ") and left.why.endswith("199999\n200000\nthe end")


def test_a_frozen_worker_stops_nobody(stage: Stage) -> None:
    """Sending megabytes to a stopped worker returns at once; killed, it is gone."""
    frozen, other = stage.ready(2)
    os.kill(frozen.facts["pid"], signal.SIGSTOP)
    begun = time.monotonic()
    for number in range(4):
        stage.backend.send(frozen.worker, loan(number), b"echo " + b"x" * 2_000_000)
    assert time.monotonic() - begun < 1
    assert answers(stage, other.worker, 2, b"echo y") == [b"y", b"y"]
    stage.backend.dismiss(frozen.worker, "frozen", kill=True)
    assert stage.left(frozen.worker).why == "frozen"
    assert not alive(frozen.facts["pid"])


def test_a_thawed_worker_answers_all(stage: Stage) -> None:
    """What was sent to a stopped worker is worked off when it goes on."""
    (worker,) = stage.ready()
    os.kill(worker.facts["pid"], signal.SIGSTOP)
    for number in range(4):
        stage.backend.send(worker.worker, loan(number), b"echo " + b"x" * 2_000_000)
    assert stage.backend.poll(0.1) == []
    os.kill(worker.facts["pid"], signal.SIGCONT)
    assert len(stage.until(lambda reports: len(reports) == 4)) == 4


def test_a_run_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inline answers wait in the worker while the run is busy elsewhere; all come."""
    monkeypatch.delattr(os, "memfd_create")
    with local(Role(slots=8)) as stage:
        (worker,) = stage.ready()
        for number in range(8):
            stage.backend.send(worker.worker, loan(number), b"size 3000000 1")
        time.sleep(0.5)
        heard = stage.until(lambda reports: len(reports) == 8)
        assert all(len(each.payload) == 3_000_000 for each in heard if isinstance(each, Answer))


def test_politeness_has_an_end(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    """A worker that does not follow a polite dismissal is killed."""
    monkeypatch.setattr(local_module, "GRACE_S", 0.3)
    (worker,) = stage.ready()
    os.kill(worker.facts["pid"], signal.SIGSTOP)
    stage.backend.dismiss(worker.worker, "drained", kill=False)
    assert stage.left(worker.worker).why == "drained"
    assert not alive(worker.facts["pid"])


def test_a_child_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that never says hello is ended, and reported."""
    monkeypatch.setattr(local_module, "CONNECT_S", 0.2)
    backend = LocalBackend({}, ["sh", "-c", "sleep 1000"], print)
    backend.start()
    (left,) = backend.poll(5)
    backend.close()
    assert "did not say hello" in left.why  # type: ignore[union-attr]


def test_ends_are_seen_without_process_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can't wait for the end of a process, ends are seen and told as well."""
    monkeypatch.delattr(os, "pidfd_open")
    with local(Role()) as stage:
        (worker,) = stage.ready()
        os.kill(worker.facts["pid"], signal.SIGKILL)
        assert stage.left(worker.worker).why == "killed by SIGKILL"
    backend = LocalBackend({}, ["false"], print)
    backend.start()
    (left,) = backend.poll(5)
    backend.close()
    assert left.why == "exit code 1"  # type: ignore[union-attr]


def test_what_can_not_be_started() -> None:
    """A command that does not exist, or none at all, is an error at once."""
    for command in (["/no/such/program"], None):
        backend = LocalBackend({}, command, print)
        with pytest.raises(FleetError):
            backend.start()
        backend.close()


def test_ctrl_c_does_not_reach_children(stage: Stage) -> None:
    """A worker that the run started goes on after SIGINT, and is in no foreground group to get it."""
    (worker,) = stage.ready()
    assert os.getpgid(worker.facts["pid"]) != os.getpgid(0)
    os.kill(worker.facts["pid"], signal.SIGINT)
    assert answers(stage, worker.worker, 1, b"echo still") == [b"still"]


def test_drained_exits_with_zero(stage: Stage) -> None:
    """After SIGTERM and a dismissal, a worker's story is its dismissal; a second SIGTERM ends it at once."""
    drained, hasty = stage.ready(2)
    os.kill(drained.facts["pid"], signal.SIGTERM)
    stage.until(bool)
    stage.backend.dismiss(drained.worker, "drained", kill=False)
    assert stage.left(drained.worker).why == "drained"
    stage.backend.send(hasty.worker, loan(0), b"wait 30")
    os.kill(hasty.facts["pid"], signal.SIGTERM)
    stage.until(bool)
    os.kill(hasty.facts["pid"], signal.SIGTERM)
    assert stage.left(hasty.worker).why == "asked to leave (SIGTERM)"


def test_sigterm_while_loading_is_heard_at_once() -> None:
    """A worker that is loading and must go does not load to the end."""
    with local(Role(loading="long")) as stage:
        name = stage.backend.start()
        stage.backend.poll(0.5)
        child = stage.backend._members[name].child  # type: ignore[attr-defined]
        os.kill(child.pid, signal.SIGTERM)
        assert stage.left(name).why == "asked to leave (SIGTERM)"


def test_close_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After close there is no process, no descriptor, no mapping and no file that was not there before."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path)[:60])
    held = set(os.listdir("/proc/self/fd"))
    backend = LocalBackend(Role()._asdict(), ["sh", "-c", f'sleep 1000 & exec {" ".join(COMMAND)} "$0" "$1"'], print)
    folder = Path(backend.address).parent
    names = [backend.start() for _ in range(3)]
    pids = []
    while len(pids) < 3:
        pids += [each.facts["pid"] for each in backend.poll(1) if isinstance(each, Hello)]
    groups = {os.getpgid(pid) for pid in pids}
    backend.send(names[0], loan(0), b"wait 30")
    os.kill(pids[1], signal.SIGSTOP)
    os.kill(pids[2], signal.SIGKILL)
    backend.poll(5)
    names.append(backend.start())
    backend.close()
    assert not folder.exists()
    assert set(os.listdir("/proc/self/fd")) == held
    assert not shares_memory(os.getpid())
    eventually(lambda: not groups & set(map(group_of, filter(str.isdigit, os.listdir("/proc")))))


RUN = """
import ctypes, os, signal, subprocess, sys
if sys.argv[1] == "adopted":
    # Its orphans become ours, as in a container: then the kernel ends no orphaned group.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    sys.exit(subprocess.call([sys.executable, "-c", os.environ["RUN"], "again", *sys.argv[2:]]) and input())
from stillhouse.runtime.local.backend import LocalBackend
backend = LocalBackend({"slots": 4}, sys.argv[2:], print)
names = [backend.start() for _ in range(3)]
hellos = []
while len(hellos) < 3:
    hellos += backend.poll(5)
pids = {each.worker: each.facts["pid"] for each in hellos}
from stillhouse.runtime.work import Lease
backend.send(names[1], Lease("s", 0, 1), b"wait 60")
backend.poll(0.1)
os.kill(pids[names[2]], signal.SIGSTOP)
print(os.getpid(), *pids.values(), flush=True)
backend.poll(60)
"""


@pytest.mark.parametrize("how", ["orphaned", "adopted"])
def test_nobody_outlives_a_killed_run(how: str) -> None:
    """When the run is killed, its idle, its busy and its frozen worker end."""
    command = [sys.executable, "-c", RUN, how, *COMMAND]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, "RUN": RUN}) as outer:
        assert outer.stdout is not None
        run, *pids = map(int, outer.stdout.readline().split())
        assert len(pids) == 3 and all(map(alive, pids))
        os.kill(run, signal.SIGKILL)
        eventually(lambda: not any(map(alive, pids)))
        outer.kill()


def test_imports_nothing_heavy() -> None:
    """A worker's start costs no import of torch or numpy."""
    check = (
        "import sys; import stillhouse.runtime.local.serving, stillhouse.runtime.local.backend; "
        "sys.exit(bool({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    assert ACTOR.exists()

"""The link to a machine is cut: silence, no word of an end. By hand and as root, since it makes network namespaces:

STILLHOUSE_ROOT_TESTS=1 pytest -s tests/runner/test_runner_cut_link.py
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.foundation.events import Event, FleetChanged
from stillhouse.runner.joining import RAY
from stillhouse.runner.run import run

from .lessons import weights
from .test_runner_fleet import fleeting, joined

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        "STILLHOUSE_ROOT_TESTS" not in os.environ or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="makes network namespaces: as root, with ip and STILLHOUSE_ROOT_TESTS=1",
    ),
]
ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

SPACE, HERE, THERE = "stillhouse-cut", "shcut0", "shcut1"
HEAD_IP, NODE_IP = "10.203.77.1", "10.203.77.2"
TUNED = {"period_ms": 1000, "timeout_ms": 1000, "failure_threshold": 3}
PORTS = ("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=200000000")


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def link() -> Iterator[None]:
    """A second network, linked with this one."""
    ip(f"netns add {SPACE}")
    try:
        ip(f"link add {HERE} type veth peer name {THERE} netns {SPACE}")
        ip(f"addr add {HEAD_IP}/24 dev {HERE}")
        ip(f"link set {HERE} up")
        ip(f"-n {SPACE} addr add {NODE_IP}/24 dev {THERE}")
        ip(f"-n {SPACE} link set {THERE} up")
        ip(f"-n {SPACE} link set lo up")
        yield
    finally:
        # By itself the link would live as long as the last socket in there.
        ip(f"link del {HERE}")
        ip(f"netns del {SPACE}")


@pytest.fixture(params=[TUNED, {}], ids=["tuned", "default"])
def cluster(request: pytest.FixtureRequest, link: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head with place for one worker here, a node with place for another one there; its address."""
    ray.shutdown()
    for name, value in request.param.items():
        monkeypatch.setenv(f"RAY_health_check_{name}", str(value))
    place = Path(tempfile.mkdtemp(prefix="ray-"))
    head = ["--head", "--port=0", f"--node-ip-address={HEAD_IP}", f"--temp-dir={place}", "--include-dashboard=false"]
    processes = [started([*head, "--num-cpus=1", *PORTS])]
    try:
        while not (place / "ray_current_cluster").exists():
            assert processes[0].poll() is None
            time.sleep(0.1)
        address = (place / "ray_current_cluster").read_text().strip()
        node = [f"--address={address}", f"--node-ip-address={NODE_IP}", "--num-cpus=1", *PORTS]
        processes.append(started(node, ["ip", "netns", "exec", SPACE]))
        monkeypatch.setenv("RAY_ADDRESS", address)
        yield address
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(place, ignore_errors=True)


def started(words: list[str], within: list[str] | None = None) -> subprocess.Popen[bytes]:
    command = [*(within or []), *RAY, "start", "--block", *words]
    return subprocess.Popen(command, process_group=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_cut_link_changes_nothing(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease of who is out of reach ends, others answer, the student is the same; Ray notices later."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))
    plain = run(fleeting(tmp_path / "none", workers=0, epochs=60), tmp_path / "plain")
    cut_s, suspected_s, lost_s = list[float](), list[float](), list[float]()

    def cut() -> None:
        while len(joined(tmp_path / "run")) < 2:
            time.sleep(0.05)
        time.sleep(1.0)
        cut_s.append(time.monotonic())
        ip(f"-n {SPACE} link set {THERE} down")
        while not over.is_set() and not lost_s:
            lost_s.extend([time.monotonic() - cut_s[0]] if misses_one() else [])
            time.sleep(0.1)

    def hear(event: Event) -> None:
        if isinstance(event, FleetChanged) and event.kind == "suspect" and cut_s:
            suspected_s.append(time.monotonic() - event.ago_s - cut_s[0])

    over, cutter = threading.Event(), threading.Thread(target=cut, daemon=True)
    cutter.start()
    result = run(fleeting(tmp_path / "none", epochs=60, backend="ray"), tmp_path / "run", [hear])
    over.set()
    assert cut_s, "it was over before the link was cut"
    cutter.join()
    if not lost_s:
        ray.init(address=cluster, log_to_driver=False)
        while not misses_one():
            time.sleep(0.1)
        lost_s.append(time.monotonic() - cut_s[0])
        ray.shutdown()
    print(f"\nafter the cut: our lease ended after {suspected_s[0]:.1f} s, Ray knew after {lost_s[0]:.1f} s")
    assert weights(result) == weights(plain)
    assert 0 < suspected_s[0] < lost_s[0]


def misses_one() -> bool:
    """Whether the cluster knows of a lost node."""
    try:
        return not all(each["Alive"] for each in ray.nodes())
    except (RuntimeError, ray.exceptions.RayError):  # the run is over, and not connected any more
        return False

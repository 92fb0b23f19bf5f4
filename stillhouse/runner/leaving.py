"""Workers of a run that is under way, and how one of them is asked to leave; no torch."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from stillhouse.foundation.errors import RunDirError, UserError, nearest
from stillhouse.foundation.files import is_held
from stillhouse.foundation.history import read_events
from stillhouse.runner.joining import DOOR
from stillhouse.runner.rundir import open_run

_TITLES = ("stillhouse", "ray::TeacherActor")
"""One of these is in the command line of a worker's process."""


@dataclass(frozen=True)
class Worker:
    """A worker that joined and has not left.

    Attributes:
        host, process_id, device: as it told when it joined.
        leaving: whether it said that it leaves.
        suspect: whether it let its time pass, and has not answered since.
    """

    name: str
    host: str
    process_id: int
    device: str
    leaving: bool = False
    suspect: bool = False

    @property
    def here(self) -> bool:
        """Whether it says that it runs on this machine."""
        return self.host == platform.node()


def workers_of(path: Path) -> list[Worker]:
    """The workers of a run, in the order they joined; as the run told last, every few seconds.

    Raises:
        RunDirError: no run there, or none with a fleet now.
    """
    folder, _ = open_run(path)
    folder.check_unfinished()
    if not (path / DOOR).exists():
        raise RunDirError(f"{path} has no fleet now: it is not running, or nobody works for it (run --workers)")
    if not is_held(path):
        raise RunDirError(
            f"{path} has no fleet now: the run was killed, and workers of a killed run end by themselves; go on with "
            f"'stillhouse resume {path}' (a run that goes on on another machine: call this there)"
        )
    found: dict[str, Worker] = {}
    for event in read_events(folder.events):
        if event["event"] == "RunStarted":
            found.clear()
        elif event["event"] == "FleetChanged" and (name := event["worker"]):
            if event["kind"] == "joined":
                facts = event["facts"]
                host, device = str(facts.get("host", "")), str(facts.get("device", ""))
                found[name] = Worker(name, host, int(facts.get("pid", 0)), device)
            elif event["kind"] == "leaving" and (known := found.get(name)):
                found[name] = replace(known, leaving=True)
            elif event["kind"] in ("suspect", "trusted") and (known := found.get(name)):
                found[name] = replace(known, suspect=event["kind"] == "suspect")
            elif event["kind"] == "left":
                found.pop(name, None)
    return list(found.values())


def ask_to_leave(path: Path, name: str) -> str:
    """Have one worker finish what it holds, and go; what will become of its place, in a sentence.

    Raises:
        UserError: no such worker, one on another machine, one that is gone or leaves already.
    """
    workers = workers_of(path)
    worker = next((each for each in workers if each.name == name), None)
    if worker is None:
        raise UserError(f"{path} has no worker '{name}' now: {nearest(name, [each.name for each in workers])}")
    if not worker.here:
        raise UserError(
            f"{name} works on {worker.host}, not here: end it there with 'kill {worker.process_id}', or with Ctrl-C "
            "where 'stillhouse join' runs"
        )
    if worker.leaving:
        raise UserError(f"{name} is leaving already: it finishes what it holds")
    _terminate(worker)
    staying = sum(not (each.leaving or each.suspect) for each in workers if each is not worker)
    return _what_follows(path, staying)


def _terminate(worker: Worker) -> None:
    """Send SIGTERM, to this very process: a number may have gone to another since."""
    gone = UserError(
        f"{worker.name} is gone: process {worker.process_id} of this machine is no worker (any more); if it is on "
        f"another machine that is called {worker.host}, too, end it there"
    )
    handle = None
    try:
        os.kill(worker.process_id, 0)
        with suppress(OSError):  # some sandboxes and old kernels refuse it
            handle = os.pidfd_open(worker.process_id) if hasattr(os, "pidfd_open") else None
        if not any(title in _command(worker.process_id) for title in _TITLES):
            raise gone
        if handle is not None:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        else:
            os.kill(worker.process_id, signal.SIGTERM)
    except PermissionError as error:
        raise UserError(f"{worker.name} (process {worker.process_id}) is another user's: ask them") from error
    except ProcessLookupError as error:
        raise gone from error
    finally:
        if handle is not None:
            os.close(handle)


def _command(process_id: int) -> str:
    """The command line of a process; "" where it can't be seen."""
    with suppress(OSError):
        return Path(f"/proc/{process_id}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    with suppress(OSError):
        asked = ["ps", "-p", str(process_id), "-o", "command="]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return ""


def _what_follows(path: Path, staying: int) -> str:
    """What the scaling policy makes of one worker less: it counts all, whoever started them."""
    least, most = open_run(path)[1].fleet.workers_range
    if staying < least:
        kept = f"{least} worker" + ("s" if least > 1 else "")
        fewer = f", or --workers {staying}-{most}" if 0 < staying < most else ""
        return (
            f"the run keeps {kept} and will start another one in its place; for fewer: stop it, then 'stillhouse "
            f"resume {path} --workers {staying}'{fewer}"
        )
    if least < most:
        return f"{staying} stay; the run starts another one only if its students need it (up to {most})"
    return f"{staying} stay, as many as the run keeps: none is started in its place"

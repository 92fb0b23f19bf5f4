"""Workers that are actors of a Ray cluster. Only this file, ``ray_actor`` and ``ray_group`` know Ray (extra ``ray``).

Every wanted worker is one actor, which waits for a machine that can hold it: a node that joins is used without any
command. Ray restarts nothing and tries nothing again, since the dispatcher does. Answers come with Ray's reply, larger
ones than ``cluster.INLINE_BYTES`` by its object store. Whatever comes is put into one queue by Ray's own threads, which
``poll`` reads.

What Ray is not told: a worker that is frozen. Nobody reports it; the dispatcher's leases end, and it is killed on its
own node.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stillhouse.foundation.errors import FleetError, UserError
from stillhouse.foundation.stamp import otherwise
from stillhouse.runtime import cluster
from stillhouse.runtime.backend import Answer, Failure, Hello, Leaving, Left, Report, Skip
from stillhouse.runtime.local.serving import Served
from stillhouse.runtime.ray_actor import Process, TeacherActor, end, in_words
from stillhouse.runtime.ray_words import in_a_clause
from stillhouse.runtime.work import Lease

_GRACE_S = 10.0
_TRIALS = 2
_GROUPS = {"work": 1, "talk": 1, "watch": 2}


def connect(check: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """Connect to the cluster that :func:`stillhouse.runtime.cluster.find` names.

    Every side needs the same ``RAY_AUTH_MODE``, set before Ray is loaded, and the same token.

    Args:
        check: called while it is waited for; ends that by what it raises.

    Returns:
        What takes the connection back; nothing where there was one before.

    Raises:
        UserError: the cluster can't be used; says why.
    """
    if ray.is_initialized():
        return lambda: None
    where, asked_to_end = cluster.find(check, _TRIALS), signal.getsignal(signal.SIGTERM)
    try:
        own: dict[str, Any] = {"_system_config": {cluster.INLINE: cluster.INLINE_BYTES}} if where == "local" else {}
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        if where == "local":
            raise UserError(f"no Ray cluster can be started on this machine: {error}") from error
        raise UserError(
            f"the Ray cluster at {where} can't be used from here: {error}; this machine must be a node of it "
            f"('stillhouse join {where}', or 'ray start'), with the same Ray and Python{cluster.way_out()}"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, asked_to_end)  # Ray takes it, and ends the process
    check()
    return ray.shutdown


def address() -> str:
    """Host and port at which machines join the cluster that this process is connected to."""
    return str(ray.get_runtime_context().gcs_address)


class _Member:
    """One actor: what it was lent, and why it ends."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.loans: set[Lease] = set()
        self.placed = self.ready = False
        self.why = ""
        self.limit_s = float("inf")
        self.process: Process | None = None


class RayBackend:
    """A backend of actors; the caller has connected to the cluster (``ray.init``) and disconnects.

    Args:
        job: plain JSON that each worker is told.
        prepare: loads and warms up; importable on every node.
        resources: of each worker, as ``ray.remote`` names them: ``num_cpus``, ``num_gpus``, ``resources``.
        warn: told of a worker that keeps its place although it was to end.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        prepare: Callable[[Mapping[str, Any]], Served],
        resources: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        options = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": _GROUPS, **resources}
        self._make = ray.remote(**options)(TeacherActor)
        self._end = ray.remote(num_cpus=0, max_retries=0)(end)
        self._job, self._prepare, self._warn = ray.put(dict(job)), prepare, warn
        self._ending: dict[Process, float] = {}
        self._members: dict[str, _Member] = {}
        self._never_ran: set[str] = set()
        self._named = 0
        self._open = True
        self._heard: queue.SimpleQueue[Callable[[], Report | None] | None] = queue.SimpleQueue()

    def start(self) -> str:
        """Ask the cluster for one more worker; its name. It waits for a node that can hold it.

        Raises:
            FleetError: closed.
        """
        if not self._open:
            raise FleetError("this run is over: it starts no workers")
        self._named += 1
        name = f"ray-{self._named}"
        member = _Member(self._make.remote())
        self._members[name] = member
        self._expect(name, member.actor.here.remote(), self._found_a_place)
        return name

    def placed(self, worker: str) -> bool:
        """Whether a node holds a worker."""
        if worker in self._members:
            return self._members[worker].placed
        return worker not in self._never_ran

    def send(self, worker: str, lease: Lease, payload: bytes) -> None:
        """Give a loan to a worker."""
        if (member := self._members.get(worker)) is not None:
            member.loans.add(lease)
            self._expect(worker, member.actor.answer.remote(lease, payload), partial(self._returned, lease))

    def revoke(self, worker: str, lease: Lease) -> None:
        """Tell that a loan is not needed any more."""
        member = self._members.get(worker)
        if member is not None and lease in member.loans:
            member.actor.revoke.remote(lease)

    def dismiss(self, worker: str, why: str, *, kill: bool, refused: bool = False) -> None:
        """End a worker. It holds no state, so that a polite end is like any other; a frozen one hears nothing of it."""
        member = self._members.get(worker)
        if member is not None and not member.why:
            member.why = why
            member.limit_s = time.monotonic() + _GRACE_S
            ray.kill(member.actor, no_restart=True)
            if kill and member.process is not None:
                self._kill(member.process)

    def poll(self, timeout_s: float) -> list[Report]:
        """What happened since; waits for a first report, or until :meth:`wake`."""
        end_s, reports = time.monotonic() + timeout_s, list[Report]()
        while self._open:
            wait_s = 0.0 if reports else max(min(end_s, self._next_limit_s()) - time.monotonic(), 0.0)
            try:
                told = self._heard.get(timeout=wait_s) if wait_s else self._heard.get_nowait()
            except queue.Empty:
                reports += self._overdue()
                if reports or time.monotonic() >= end_s:
                    break
                continue
            if told is None:
                break
            if (report := told()) is not None:
                reports.append(report)
        return reports

    def wake(self) -> None:
        """Let a waiting :meth:`poll` return now; from any thread."""
        self._heard.put(None)

    def close(self) -> None:
        """End all workers. Idempotent."""
        self._open = False
        for member in self._members.values():
            ray.kill(member.actor, no_restart=True)
        self._members.clear()

    def _expect(self, name: str, reference: Any, then: Callable[[str, _Member, Any], Report | None]) -> None:
        """Have what comes of a call handled by :meth:`poll`: an error is the worker's end."""

        def came(future: Any) -> None:
            error = future.exception()
            self._heard.put(partial(self._came, name, None if error else future.result(), error, then))

        reference.future().add_done_callback(came)

    def _came(
        self, name: str, reply: Any, error: BaseException | None, then: Callable[[str, _Member, Any], Report | None]
    ) -> Report | None:
        member = self._members.get(name)
        if member is None:
            return None
        return then(name, member, reply) if error is None else self._left(name, error)

    def _kill(self, process: Process) -> None:
        """By a task on its own node."""
        there = NodeAffinitySchedulingStrategy(process.node, soft=False)
        self._ending[process] = time.monotonic() + _GRACE_S

        reference = self._end.options(scheduling_strategy=there).remote(process)
        reference.future().add_done_callback(lambda _: self._heard.put(partial(self._is_gone, process)))

    def _is_gone(self, process: Process) -> None:
        """It is no more, or its node is not."""
        self._ending.pop(process, None)

    def _found_a_place(self, name: str, member: _Member, reply: Any) -> Report | None:
        member.placed = True
        if why := otherwise(str(reply)):
            refused, member.why = not member.why, member.why or why
            return self._left(name, None)._replace(refused=refused)
        self._expect(name, member.actor.process.remote(), self._met)
        return None

    def _met(self, name: str, member: _Member, reply: Any) -> None:
        """From now on it can be killed whatever it does: only then it may begin."""
        member.process = Process(*reply)
        self._expect(name, member.actor.load.remote(self._job, self._prepare), self._loaded)
        self._expect(name, member.actor.wants_to_leave.remote(), self._leaving)
        self._expect(name, member.actor.live.remote(), self._ended)

    def _loaded(self, name: str, member: _Member, reply: Any) -> Report | None:
        kind, told = reply
        if kind == "unfit":
            member.why = member.why or told
            return self._left(name, None)
        member.ready = member.placed = True
        return None if member.why else Hello(name, *told)

    def _returned(self, lease: Lease, name: str, member: _Member, reply: Any) -> Report:
        member.loans.discard(lease)
        kind, told = reply
        if kind == "skip":
            return Skip(name, lease)
        return Answer(name, lease, *told) if kind == "answer" else Failure(name, lease, told)

    def _leaving(self, name: str, member: _Member, reply: Any) -> Report | None:
        if not member.ready:
            self.dismiss(name, reply, kill=True)
        return Leaving(name, reply) if member.ready and not member.why else None

    def _ended(self, name: str, member: _Member, reply: Any) -> Report:
        return self._left(name, None)

    def _left(self, name: str, error: BaseException | None) -> Left:
        member = self._members.pop(name)
        ray.kill(member.actor, no_restart=True)  # it may live: what it raised ended only its call
        if not member.placed and "never ran" in str(error):  # Ray gave it a node that was lost already
            self._never_ran.add(name)
        return Left(name, member.why or _cause(error))

    def _overdue(self) -> list[Report]:
        """Workers that were told to end and of whose end nothing came: the cluster may have lost them."""
        now_s = time.monotonic()
        for process in [each for each, limit_s in self._ending.items() if now_s >= limit_s]:
            self._ending[process] = float("inf")
            self._warn(
                f"a worker on {process.host} was to end, and may still keep its place: kill -9 {process.pid} there"
            )
        late = {name: each for name, each in self._members.items() if now_s >= each.limit_s}
        for process in [each.process for each in late.values() if each.process is not None]:
            if process not in self._ending:
                self._kill(process)
        return [self._left(name, None) for name in late]

    def _next_limit_s(self) -> float:
        return min((*(each.limit_s for each in self._members.values()), *self._ending.values()), default=float("inf"))


def _cause(error: BaseException | None) -> str:
    """Ray's story in a clause; of what an actor raised, that."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        return in_words(error.cause)
    return in_a_clause(str(error) if isinstance(error, RayError) else repr(error))

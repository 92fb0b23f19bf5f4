"""Workers on this machine, or forwarded to it by ssh: processes that come in by a Unix domain socket.

The run starts some itself and people start others in another shell; both say hello at the same :class:`Door` and are
told the same job. Names of work go out through the socket, answers come back through shared memory or, where that
can't be, inline. Everything happens in the thread that calls ``poll``. What comes through the door is parsed, checked
and never unpickled; a worker that breaks the rules loses its connection, and nothing else happens.
"""

from __future__ import annotations

import json
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from stillhouse.foundation.errors import FleetError
from stillhouse.runtime.backend import Left, Report
from stillhouse.runtime.gaps import Gaps
from stillhouse.runtime.local.channel import Channel
from stillhouse.runtime.local.children import Child
from stillhouse.runtime.local.door import Door
from stillhouse.runtime.local.frames import Frame, ProtocolError
from stillhouse.runtime.local.member import Member, name_in
from stillhouse.runtime.local.porch import Porch
from stillhouse.runtime.work import Lease

# A child says hello before it loads anything, so that this is generous; a polite worker that is idle ends in less.
CONNECT_S = 60.0
GRACE_S = 5.0
# Where the end of a child can't be waited for, it is looked for so often.
_LOOK_S = 0.05
_TRIM_S = 1.0


class LocalBackend:
    """A backend of processes; :func:`~stillhouse.runtime.local.serving.serve` is their side.

    All methods but ``wake`` are for one thread, and workers end with the thread that started them.

    Attributes:
        address: where others join, a path.

    Args:
        job: plain JSON that each worker is told: what to load. Opaque here.
        command: what starts a worker; the address and a name are appended. None: workers only join.
        warn: is told what a person should know: strangers, and joining workers that did not get ready.
        proof_bytes_max: the longest that a worker may show of its work when it is ready.
        keeps: so many workers are not let go although others suffice; those that join are told.

    Raises:
        FleetError: no socket can be made.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        command: Sequence[str] | None,
        warn: Callable[[str], None],
        proof_bytes_max: int = 0,
        keeps: int = 0,
    ) -> None:
        self._job = json.dumps(dict(job)).encode()
        self._command = command
        self._warn = warn
        self._proof_bytes_max, self._keeps = proof_bytes_max, keeps
        self._members: dict[str, Member] = {}
        self._reports: list[Report] = []
        self._named = 0
        self._trim_s = 0.0
        door = Door()
        self.address = door.address
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._open = True
        self._closing = threading.Lock()
        self._porch = Porch(door, self._selector, self._greet, warn)
        self._gaps = Gaps(time.monotonic)
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake_up)

    def start(self) -> str:
        """Begin one more worker; its name. It lives no longer than the calling thread.

        Raises:
            FleetError: this backend starts none, is closed, or the command can't be run.
        """
        if self._command is None or not self._open:
            raise FleetError("this run starts no workers" + (f"; they join at {self.address}" if self._open else ""))
        name = self._new_name("local")
        member = Member(name, Child([*self._command, self.address, name]))
        member.limit_s = time.monotonic() + CONNECT_S
        self._members[name] = member
        if member.child and member.child.exit_fd is not None:
            self._selector.register(member.child.exit_fd, selectors.EVENT_READ, partial(self._exited, member))
        return name

    def placed(self, worker: str) -> bool:
        """Always: this machine holds whatever is started."""
        return True

    def send(self, worker: str, lease: Lease, payload: bytes) -> None:
        """Give a loan to a worker."""
        if member := self._members.get(worker):
            member.lend(lease, payload)
            self._watch(member)

    def revoke(self, worker: str, lease: Lease) -> None:
        """Tell that a loan is not needed any more."""
        if member := self._members.get(worker):
            member.revoke(lease)
            self._watch(member)

    def dismiss(self, worker: str, why: str, *, kill: bool, refused: bool = False) -> None:
        """End a worker.

        A polite dismissal that is not followed within ``GRACE_S`` becomes a kill. Of a worker that joined from
        elsewhere only the connection can be killed; it ends when it hears of that.
        """
        member = self._members.get(worker)
        if member is None:
            return
        member.why = member.why or why
        if kill or member.channel is None:
            self._kill(member)
        elif member.limit_s > time.monotonic() + GRACE_S:
            member.send_away(why, 2 if refused else 0)
            member.limit_s = time.monotonic() + GRACE_S
            self._watch(member)

    def poll(self, timeout_s: float) -> list[Report]:
        """What happened since; waits for a first report, or until :meth:`wake`."""
        end_s = time.monotonic() + timeout_s
        woken = not self._open
        while self._open:
            now_s = time.monotonic()
            until_s = min(end_s, self._keep_limits(now_s))
            wait_s = 0.0 if self._reports else max(0.0, until_s - now_s)
            for key, mask in self._selector.select(wait_s):
                woken = key.data(mask) is True or woken
            if self._reports or woken or time.monotonic() >= end_s:
                break
        reports, self._reports = self._reports, []
        return reports

    def wake(self) -> None:
        """Let a waiting :meth:`poll` return now; from any thread."""
        with self._closing, suppress(OSError):
            self._waker.send(b"\0")

    def close(self) -> None:
        """End all workers, at once, and free everything. Idempotent."""
        with self._closing:
            if not self._open:
                return
            self._open = False
            self._waker.close()
        for member in self._members.values():
            if member.child:
                member.child.kill()
            else:
                member.send_away("the run is over", 0)
        for member in self._members.values():
            member.end("")
        self._members.clear()
        self._porch.close()
        self._selector.close()
        self._woken.close()

    # What the selector calls.

    def _wake_up(self, _mask: int) -> bool:
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        return True

    def _greet(self, channel: Channel, frame: Frame | None) -> None:
        """Somebody says its first words, or ends without any."""
        try:
            if frame is None:
                # Who comes and goes without a word looked whether somebody is there.
                if channel.ended != "hung up":
                    self._warn(f"somebody at {self.address} {channel.ended}; hung up on")
                channel.close()
                return
            member = self._member_for(frame.header)
        except ProtocolError as error:
            self._warn(f"a worker was sent away from {self.address}: {error}")
            channel.send({"do": "dismiss", "why": str(error), "exit_code": 2})
            channel.close()
            return
        member.connect(channel, frame.header, self._welcome(member), self._job, self._proof_bytes_max)
        self._selector.register(channel.socket, selectors.EVENT_READ, partial(self._heard, member))
        self._watch(member)

    def _heard(self, member: Member, mask: int) -> None:
        if member.channel is None:
            return
        if mask & selectors.EVENT_WRITE:
            member.channel.flush()
        if mask & selectors.EVENT_READ:
            self._reports += member.hear()
        if not member.channel.ended:
            self._watch(member)
        else:
            self._hung_up(member)

    def _exited(self, member: Member, _mask: int = 0) -> None:
        if member.name in self._members:
            if member.channel is not None:
                # All of its last words; the end of the connection may never come, if it left children behind.
                self._reports += member.hear(2**20)
            self._left(member)

    def _new_name(self, kind: str) -> str:
        self._named += 1
        return f"{kind}-{self._named}"

    def _member_for(self, hello: dict[str, Any]) -> Member:
        """Who says hello: the child that was started with its name, or somebody new."""
        name = name_in(hello)
        if not name:
            member = Member(self._new_name("joined"), None)
            self._members[member.name] = member
            return member
        named = self._members.get(name)
        if named is None or not named.awaited:
            raise ProtocolError(f"it calls itself {name!r}, and no worker of that name is awaited")
        return named

    def _welcome(self, member: Member) -> str:
        others = sum(not each.why for each in self._members.values()) - 1
        words = f"joins the run as {member.name}, beside {others} other worker{'' if others == 1 else 's'}"
        if 0 < self._keeps <= others:
            words += f"; the run keeps {self._keeps} (fleet.workers); of more it lets the slowest go once they suffice"
        return words

    def _watch(self, member: Member) -> None:
        """Have the selector tell when it can be heard and, where something is unsent, written to."""
        if member.channel is not None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if member.channel.unsent else 0)
            key = self._selector.get_key(member.channel.socket)
            if key.events != events:
                self._selector.modify(member.channel.socket, events, key.data)

    def _hang_up(self, member: Member) -> None:
        if member.channel is not None:
            self._selector.unregister(member.channel.socket)
            member.hang_up()

    def _hung_up(self, member: Member) -> None:
        """Its connection ended: one that joined is gone; how a child ended is told by its exit, which comes soon."""
        assert member.channel is not None
        if member.child is None:
            self._left(member)
        elif member.channel.broken:
            member.why = member.why or member.channel.ended
            self._kill(member)
        else:
            self._hang_up(member)
            member.limit_s = min(member.limit_s, time.monotonic() + GRACE_S)

    def _kill(self, member: Member) -> None:
        member.limit_s = math.inf
        if member.child is None:
            self._left(member)
        else:
            self._hang_up(member)
            member.child.kill()

    def _left(self, member: Member) -> None:
        """It is no more: tell whoever knew of it."""
        heard = member.channel.ended if member.channel else ""
        self._hang_up(member)
        if member.child and member.child.exit_fd is not None:
            self._selector.unregister(member.child.exit_fd)
        del self._members[member.name]
        why = member.end(heard)
        if member.ready or member.child:
            self._reports.append(Left(member.name, why))
        else:
            self._warn(f"a worker ({member.origin}) left before it was ready: {why}")

    def _keep_limits(self, now_s: float) -> float:
        """End those that had their time; when the next one will have had it."""
        if now_s >= self._trim_s:
            self._trim_s = now_s + _TRIM_S
            for member in self._members.values():
                if member.child is not None:
                    member.child.trim()
        if missed_s := self._gaps.missed_s(now_s):
            self._porch.wait_longer(missed_s)
            for member in self._members.values():
                member.limit_s += missed_s
        next_s = self._porch.keep_limits(now_s)
        for member in list(self._members.values()):
            if member.child and member.child.exit_fd is None:
                next_s = min(next_s, now_s + _LOOK_S)
                if member.child.exited():
                    self._exited(member)
                    continue
            if now_s >= member.limit_s:
                late = f"did not say hello within {CONNECT_S:.0f} s" if member.awaited else "hung up and would not end"
                member.why = member.why or late
                self._kill(member)
            next_s = min(next_s, member.limit_s)
        return next_s

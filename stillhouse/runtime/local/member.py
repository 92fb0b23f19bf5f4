"""One worker as the run sees it: what it was lent, what it says, and why it ended.

worker  hello {protocol, stillhouse, pid, host, fds, name}   who it is; ``name``: what it was started with
run     job {welcome} + body                                 what to tell who started it; what to load, opaque here
worker  ready {facts, slots} + body                          loaded and warm; what it shows of its work
run     ring {slots, slot_bytes} + descriptor                memory for answers, where it can be shared
run     loan {lease, slot} + body, revoke {lease}
worker  answer {lease, nbytes} in its slot or {lease} + body, failure {lease, why}, skip {lease}
worker  leaving {why}, bye {why}                             it wants to go; its last words
run     dismiss {why, exit_code}
"""

from __future__ import annotations

import math
from typing import Any

from stillhouse.runtime.backend import Answer, Failure, Hello, Leaving, Report, Skip
from stillhouse.runtime.local.channel import Channel
from stillhouse.runtime.local.children import Child
from stillhouse.runtime.local.frames import (
    BODY_BYTES_MAX,
    PROTOCOL,
    SLOTS_MAX,
    Frame,
    ProtocolError,
    lease_in,
    mapping_in,
    number_in,
    seconds_in,
    text_in,
)
from stillhouse.runtime.local.ring import OwnedRing, make_ring
from stillhouse.runtime.work import Lease

_PID_MAX = 2**31 - 1


def name_in(hello: dict[str, Any]) -> str:
    """What somebody who says hello calls itself; "" for one that joins by hand.

    Raises:
        ProtocolError: this is no hello, or one of another protocol.
    """
    if hello["do"] != "hello":
        raise ProtocolError(f"'{hello['do']}' before 'hello'")
    if hello.get("protocol") != PROTOCOL:
        raise ProtocolError(
            f"it speaks protocol {hello.get('protocol')} (stillhouse {hello.get('stillhouse')}), "
            f"this run {PROTOCOL}: install the same stillhouse on both sides"
        )
    return text_in(hello, "name")


class Member:
    """A worker, from its start or its hello to its end.

    Attributes:
        child: its process, if the run started it.
        channel: None until it is connected, and when it has hung up.
        ready: whether it said so, and was reported.
        why: why it ends, where the run decided that; "" else.
        limit_s: when patience with what it is about to do ends, on the monotonic clock.
    """

    def __init__(self, name: str, child: Child | None) -> None:
        self.name = name
        self.child = child
        self.channel: Channel | None = None
        self.ready = False
        self.why = ""
        self.limit_s = math.inf
        self._hello: dict[str, Any] = {}
        self._ring: OwnedRing | None = None
        self._loans: dict[Lease, int | None] = {}
        self._slots = 0
        self._last_words = ""

    def connect(self, channel: Channel, hello: dict[str, Any], welcome: str, job: bytes, proof_bytes_max: int) -> None:
        """It came in by the door: give it its job. What it shows when it is ready may be so long."""
        self.channel = channel
        self.limit_s = math.inf
        self._hello = hello
        channel.decoder.body_bytes_max = proof_bytes_max
        channel.send({"do": "job", "welcome": welcome}, job)

    def lend(self, lease: Lease, payload: bytes) -> None:
        """Send a loan; lost if nobody listens."""
        if self.channel is None:
            return
        assert len(self._loans) < self._slots, f"{self.name} is lent more than its {self._slots} slots"
        slot = self._ring.take() if self._ring else None
        self._loans[lease] = slot
        self.channel.send({"do": "loan", "lease": lease, "slot": slot}, payload)

    def revoke(self, lease: Lease) -> None:
        """Tell that a loan is not needed."""
        if self.channel is not None and lease in self._loans:
            self.channel.send({"do": "revoke", "lease": lease})

    def send_away(self, why: str, exit_code: int) -> None:
        """Tell it to go, with a reason for the person who started it."""
        if self.channel is not None:
            self.channel.send({"do": "dismiss", "why": why, "exit_code": exit_code})

    @property
    def awaited(self) -> bool:
        """Whether it was started here and has not said hello."""
        return self.child is not None and not self._hello and not self.why

    @property
    def origin(self) -> str:
        """Where it runs, for a person."""
        return f"process {self._hello.get('pid')} on {self._hello.get('host')}"

    def hear(self, *limit: int) -> list[Report]:
        """What it said since; ``channel.ended`` tells whether that was the last."""
        assert self.channel is not None
        reports: list[Report] = []
        for frame in self.channel.receive(*limit):
            try:
                report = self._understand(frame)
            except ProtocolError as error:
                self.channel.refuse(error)
                break
            if report is not None:
                reports.append(report)
        return reports

    def _understand(self, frame: Frame) -> Report | None:
        header, body = frame
        match header["do"]:
            case "answer":
                lease, slot = self._returned(header)
                return Answer(self.name, lease, self._payload(header, body, slot), seconds_in(header, "spent_s"))
            case "failure":
                return Failure(self.name, self._returned(header)[0], text_in(header, "why"))
            case "skip":
                return Skip(self.name, self._returned(header)[0])
            case "ready" if not self.ready:
                return self._warm(header, body)
            case "leaving" if self.ready:
                return Leaving(self.name, text_in(header, "why"))
            case "bye":
                self._last_words = text_in(header, "why")
                return None
        raise ProtocolError(f"'{header['do']}', which is not expected now")

    def _warm(self, header: dict[str, Any], proof: bytearray) -> Hello | None:
        assert self.channel is not None
        self._slots = number_in(header, "slots", 1, SLOTS_MAX)
        hello = self._hello
        here = {"host": text_in(hello, "host"), "stillhouse": text_in(hello, "stillhouse")}
        facts = {**mapping_in(header, "facts"), **here, "pid": number_in(hello, "pid", 1, _PID_MAX)}
        self.ready = True
        self.channel.decoder.body_bytes_max = BODY_BYTES_MAX
        if self._hello.get("fds") is True and (ring := make_ring(self._slots)):
            try:
                self.channel.send({"do": "ring", "slots": ring.slots, "slot_bytes": ring.slot_bytes}, fd=ring.fd)
                self._ring = ring
            except OSError:  # no descriptor is left to send: answers go inline
                ring.close()
        return None if self.why else Hello(self.name, facts, self._slots, proof)

    def _returned(self, header: dict[str, Any]) -> tuple[Lease, int | None]:
        """The loan that comes back, and the slot that was lent with it."""
        lease = lease_in(header)
        if lease not in self._loans:
            raise ProtocolError(f"'{header['do']}' to {tuple(lease)}, which it does not hold")
        slot = self._loans.pop(lease)
        if slot is not None and self._ring is not None:
            # Nothing is written into it before the next loan names it, and what lies there is copied before that.
            self._ring.free(slot)
        return lease, slot

    def _payload(self, header: dict[str, Any], body: bytearray, slot: int | None) -> bytes | bytearray:
        if "nbytes" not in header:
            return body
        if slot is None or self._ring is None or body:
            raise ProtocolError("'answer' in a slot that was not lent")
        return self._ring.read(slot, number_in(header, "nbytes", 0, self._ring.slot_bytes))

    def hang_up(self) -> None:
        """Close the connection and let go of the shared memory. Idempotent."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def end(self, heard: str) -> str:
        """End what is left of it, and tell why it ended: what was decided here, what it said, or what was seen.

        Args:
            heard: what ended its connection.
        """
        self.hang_up()
        seen = self.child.bury() if self.child else heard.replace("hung up", "its connection ended")
        return self.why or self._last_words or seen

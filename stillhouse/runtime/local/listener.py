"""The thread of a worker that hears the run, and signals, while the main thread computes.

Signals reach it through their wake-up descriptor, so they are heard at once even when the main thread is deep in native
code. Where the process must end although the main thread can't be interrupted (the run is gone, a second signal, sent
away while loading), it calls ``os._exit``: a worker holds nothing that is worth saving.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, NamedTuple, NoReturn, Self

from stillhouse.runtime.local.channel import Channel
from stillhouse.runtime.local.frames import Bytes, Frame, ProtocolError, lease_in, number_in, text_in
from stillhouse.runtime.local.ring import RING_BYTES_MAX, BorrowedRing
from stillhouse.runtime.work import Lease

# What wakes the listener and is no signal: something is left to be sent.
_UNSENT = b"\0"


class Loan(NamedTuple):
    """Something to do, and the slot of shared memory for its answer, if there is one."""

    lease: Lease
    slot: int | None
    payload: bytes


class Listener:
    """Runs from ``with`` to its end; the methods are the main thread's.

    Attributes:
        welcome: what the run has to tell who started this worker; known with the job.
        farewell: why the run sent this worker away.
        exit_code: what the run wants the process to exit with.

    Args:
        by_hand: a person started this worker, so SIGINT means to leave; else it is ignored.
    """

    def __init__(self, channel: Channel, *, by_hand: bool) -> None:
        self.welcome = self.farewell = ""
        self.exit_code = 0
        self._channel = channel
        self._by_hand = by_hand
        self._job: Mapping[str, Any] | None = None
        self._ring: BorrowedRing | None = None
        self._loans: deque[Loan] = deque()
        self._changed = threading.Condition()
        self._warm = self._over = self._leaving = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self._wakeup_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, _heard_elsewhere)
        signal.signal(signal.SIGINT, _heard_elsewhere if self._by_hand else signal.SIG_IGN)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._over = True
        self._waker.send(_UNSENT)
        self._thread.join()
        self._channel.close()
        if self._ring is not None:
            self._ring.close()
        self._woken.close()
        self._waker.close()

    def job(self) -> Mapping[str, Any]:
        """What the run wants loaded."""
        with self._changed:
            self._changed.wait_for(lambda: self._job is not None)
        assert self._job is not None
        return self._job

    def ready(self, told: dict[str, Any], proof: Bytes) -> None:
        """Tell that all is loaded; loans come from now on."""
        self._warm = True
        self._say({"do": "ready", **told}, proof)

    def next_loan(self) -> Loan | None:
        """The next loan, waited for; None when this worker was sent away."""
        with self._changed:
            self._changed.wait_for(lambda: self._loans or self.farewell)
            return self._loans.popleft() if not self.farewell else None

    def answer(self, loan: Loan, answer: memoryview, spent_s: float) -> None:
        """Give an answer: in its slot, or inline where it has none or is longer; and say what it took, in seconds."""
        header = {"do": "answer", "lease": loan.lease, "spent_s": round(spent_s, 6)}
        if self._ring is not None and loan.slot is not None and answer.nbytes <= self._ring.slot_bytes:
            self._ring.write(loan.slot, answer)
            self._say(header | {"nbytes": answer.nbytes})
        else:
            self._say(header, answer)

    def fail(self, loan: Loan, why: str) -> None:
        """Tell that there will be no answer, and why."""
        self._say({"do": "failure", "lease": loan.lease, "why": why})

    def say_bye(self, why: str) -> None:
        """Last words before this process ends."""
        self._say({"do": "bye", "why": why})

    def _say(self, header: dict[str, Any], body: Bytes = b"") -> None:
        self._channel.send(header, body)
        if self._channel.unsent:
            with suppress(BlockingIOError):
                self._waker.send(_UNSENT)

    # The thread.

    def _listen(self) -> None:
        try:
            self._listen_till_over()
        except Exception as error:
            # A worker that hears nothing any more must not stay.
            traceback.print_exc()
            _exit(1, f"worker ends: {type(error).__name__}: {error}")

    def _listen_till_over(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(self._channel.socket, selectors.EVENT_READ)
            while not self._over:
                unsent = selectors.EVENT_WRITE if self._channel.unsent else 0
                selector.modify(self._channel.socket, selectors.EVENT_READ | unsent)
                selector.select()
                self._channel.flush()
                self._hear_signals()
                self._hear_run()

    def _hear_signals(self) -> None:
        with suppress(BlockingIOError):
            for number in self._woken.recv(4096).strip(_UNSENT):
                why = f"asked to leave ({signal.Signals(number).name})"
                if self._leaving or not self._warm:
                    self._channel.send({"do": "bye", "why": why})
                    _exit(128 + number, f"worker ends: {why}")
                self._leaving = True
                self._channel.send({"do": "leaving", "why": why})
                print(f"worker leaves ({why}) when it has done what it holds; once more: at once", file=sys.stderr)

    def _hear_run(self) -> None:
        for frame in self._channel.receive():
            try:
                self._understand(frame)
            except ProtocolError as error:
                _exit(1, f"worker ends: the run sent {error}")
        if self._channel.ended and not self.farewell:
            _exit(1, f"worker ends: the run {self._channel.ended}")

    def _understand(self, frame: Frame) -> None:
        header = frame.header
        with self._changed:
            match header["do"]:
                case "job":
                    self.welcome = str(header.get("welcome", ""))
                    self._job = json.loads(frame.body)
                case "ring":
                    self._map_ring(header)
                case "loan":
                    self._loans.append(Loan(lease_in(header), header.get("slot"), bytes(frame.body)))
                case "revoke":
                    self._leave_out(lease_in(header))
                case "dismiss":
                    self._sent_away(text_in(header, "why"), number_in(header, "exit_code", 0, 255))
                case _:
                    raise ProtocolError(f"'{header['do']}', which this worker does not know")
            self._changed.notify()

    def _map_ring(self, header: dict[str, Any]) -> None:
        # Through a forwarded socket no descriptor travels; then answers go inline.
        if (fd := self._channel.take_fd()) is not None:
            slots, slot_bytes = (number_in(header, key, 1, RING_BYTES_MAX) for key in ("slots", "slot_bytes"))
            with suppress(OSError, ValueError):
                self._ring = BorrowedRing(fd, slots, slot_bytes)

    def _leave_out(self, lease: Lease) -> None:
        for loan in self._loans:
            if loan.lease == lease:
                self._loans.remove(loan)
                self._channel.send({"do": "skip", "lease": lease})
                return

    def _sent_away(self, why: str, exit_code: int) -> None:
        if not self._warm:
            _exit(exit_code, f"worker ends: {why}")
        self.farewell, self.exit_code = why or "not needed any more", exit_code


def _heard_elsewhere(_number: int, _frame: FrameType | None) -> None:
    """The wake-up descriptor told the listener."""


def _exit(code: int, words: str) -> NoReturn:
    print(words, file=sys.stderr, flush=True)
    os._exit(code)

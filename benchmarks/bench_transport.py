"""What it costs to carry answers from a worker to the run: CPU time, without the teacher's compute.

An answer is 256 x 1000 logits in fp16 (512,000 bytes), made once; two loans are on their way at any time. The rival is
a process with a pipe of :mod:`multiprocessing` and the same array pickled, written with care: protocol 5, whole
messages, no feeder thread. Clocks count all of a process: system calls, threads, page faults. Once the bare backend is
measured, and then what a student has of it (``benchmarks.dispatched``): dispatcher, asker, rows in order; on Ray, too.

Also a program: ``python -m benchmarks.bench_transport ADDRESS NAME`` is the worker.
"""

from __future__ import annotations

import multiprocessing
import pickle
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection

import numpy as np

from stillhouse.runtime.backend import Answer, Report
from stillhouse.runtime.local.backend import LocalBackend
from stillhouse.runtime.local.serving import Served, serve
from stillhouse.runtime.work import Lease

SHAPE: tuple[int, int] = (256, 1000)
IN_FLIGHT = 2
KEYS = bytes(256 * 8)
CPU = (
    "256x1000 fp16 answers a second of CPU time, both sides summed, without dispatcher and teacher (0.3 ms an answer: "
    "3333): local backend / multiprocessing pipe with pickle 5"
)
WITH = "256x1000 fp16 answers a second of CPU time, dispatcher, asker and rows in order included, without the teacher"
LOCAL = f"{WITH} (0.3 ms an answer: 3333): local backend"
RAY = f"{WITH} (3 ms an answer: 333): Ray backend on a cluster of this machine alone"
ALL = "all processes, the cluster's own, too / multiprocessing pipe with pickle 5 and nothing around it, both sides"
OWN = "the student's process alone / multiprocessing pipe with pickle 5 and nothing around it, both sides"


def answers() -> np.ndarray:
    """What a worker answers, again and again."""
    return (np.arange(np.prod(SHAPE)) % 2048).astype(np.float16).reshape(SHAPE)


def work(address: str, name: str) -> int:
    """Our worker: answers at once; asked for nothing, it tells its CPU seconds."""
    ready = answers()
    return serve(
        address,
        lambda _: Served({}, IN_FLIGHT, lambda keys: ready.data if keys else struct.pack("d", time.process_time())),
        name=name,
    )


def work_in_pipe(pipe: Connection) -> None:
    """The rival's worker."""
    ready = answers()
    while True:
        number, keys = pickle.loads(pipe.recv_bytes())
        answer = ready if keys else time.process_time()
        pipe.send_bytes(pickle.dumps((number, answer), protocol=5))


class Ours:
    """The local backend with one worker."""

    def __init__(self) -> None:
        self._backend = LocalBackend({}, [sys.executable, "-m", "benchmarks.bench_transport"], print)
        self._worker = self._backend.start()
        self._backend.poll(60)
        self._heard: deque[Report] = deque()
        self._number = 0

    def send(self, keys: bytes) -> None:
        """Ask for one more."""
        self._number += 1
        self._backend.send(self._worker, Lease("student", self._number, 1), keys)

    def take(self) -> bytes | bytearray | memoryview:
        """The next answer."""
        while not self._heard:
            self._heard += self._backend.poll(10)
        report = self._heard.popleft()
        assert isinstance(report, Answer)
        return report.payload

    def array(self) -> np.ndarray:
        """The next answer as the consumer wants it."""
        return np.frombuffer(self.take(), np.float16).reshape(SHAPE)

    def worker_s(self) -> float:
        """CPU seconds of the worker."""
        self.send(b"")
        return float(struct.unpack("d", self.take())[0])

    def close(self) -> None:
        """End the worker."""
        self._backend.close()


class Rival:
    """A process with a pipe."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=work_in_pipe, args=(other,), daemon=True)
        self._process.start()
        self._number = 0

    def send(self, keys: bytes) -> None:
        """Ask for one more."""
        self._number += 1
        self._pipe.send_bytes(pickle.dumps((self._number, keys), protocol=5))

    def array(self) -> np.ndarray:
        """The next answer."""
        array: np.ndarray = pickle.loads(self._pipe.recv_bytes())[1]
        return array

    def worker_s(self) -> float:
        """CPU seconds of the worker."""
        self.send(b"")
        return float(self.array())

    def close(self) -> None:
        """End the worker."""
        self._process.kill()
        self._process.join()


def rate(side: Ours | Rival, count: int) -> float:
    """Answers a second of CPU time."""
    begun = side.worker_s() + time.process_time()
    for _ in range(IN_FLIGHT):
        side.send(KEYS)
    for number in range(count):
        array = side.array()
        if number + IN_FLIGHT < count:
            side.send(KEYS)
    assert array.shape == SHAPE
    return count / (side.worker_s() + time.process_time() - begun)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        sys.exit(work(*sys.argv[1:]))
    # Not above: these import torch, the worker does not need it.
    from benchmarks.dispatched import Dispatched, on_ray
    from benchmarks.harness import Claim, compare, quick, tell

    short = quick()
    count, rounds = (500, 5) if short else (2000, 15)
    ours, rival = Ours(), Rival()
    ours.send(KEYS)
    rival.send(KEYS)
    assert np.array_equal(ours.array(), rival.array())
    rate(ours, 200), rate(rival, 200)
    unit = "answers/CPU s"
    measured = [compare("transport_cpu", CPU, unit, lambda: rate(ours, count), lambda: rate(rival, count), rounds)]
    ours.close()

    def student(claim: str, words: str, make: Callable[[], Dispatched]) -> list[Claim]:
        """Two claims of one kind of worker: all processes, and the student's alone."""
        side = make()
        side.rate(200, everything=True)
        told = [
            compare(name, text, unit, partial(side.rate, count, everything), lambda: rate(rival, count), rounds)
            for name, text, everything in (
                (claim, f"{words}, {ALL}", True),
                (f"{claim}_student", f"{words}, {OWN}", False),
            )
        ]
        side.close()
        return told

    program = [sys.executable, "-m", "benchmarks.bench_transport"]
    measured += student("dispatched_cpu_local", LOCAL, lambda: Dispatched(LocalBackend({}, program, print)))
    if find_spec("ray") is not None:
        measured += student("dispatched_cpu_ray", RAY, on_ray)
    rival.close()
    tell("transport", measured, write=not short)

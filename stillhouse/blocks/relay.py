"""Activations handed from worker to worker over ``torch.distributed``: sent before anything learns, taken in ahead.

Only bits travel, with the strides in which they lie: kernels add up in memory's order, so that who gets an activation
learns the very same as who computes it. At most :data:`AHEAD` batches wait at either end, which bounds memory and lets
nobody wait for anybody but by the slowest one's pace. An end is said in line: where the first worker stops all stop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.blocks.train import dense
from stillhouse.foundation.errors import Interrupted, StillhouseError

AHEAD = 2
_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_AXES_MAX = 8
_FORM_LENGTH = 4 + 2 * _AXES_MAX
_NOTE, _BODY = 1, 2
_TRIPS = 4


class Sender:
    """Hands on.

    Args:
        ranks: of the workers that want it.
        wire: the device on which it travels.
    """

    def __init__(self, ranks: Sequence[int], wire: torch.device) -> None:
        self._ranks, self._wire = ranks, wire
        self._form: list[int] = []
        self._under_way: deque[tuple[list[Any], Tensor, Tensor]] = deque()

    def send(self, sample_ids: NDArray[np.int64], activation: Tensor) -> None:
        """Hand on what belongs to a batch; waits while too much is under way.

        Args:
            activation: [B, ...], not changed by anybody afterwards.

        Raises:
            StillhouseError: it lies in memory otherwise than the one before.
        """
        whole = dense(activation)
        form = _form_of(whole, len(sample_ids))
        if not self._form:
            self._form = form
            for rank in self._ranks:
                dist.send(torch.tensor(form), rank)
        elif form != self._form:
            raise StillhouseError("an activation came out in another form than the batch before")
        note = torch.from_numpy(np.concatenate([np.zeros(1, np.int64), sample_ids]))
        body = _flat(whole).to(self._wire)
        works = [dist.isend(note, rank, tag=_NOTE) for rank in self._ranks]
        works += [dist.isend(body, rank, tag=_BODY) for rank in self._ranks]
        self._under_way.append((works, note, body))
        self._wait(AHEAD)

    def stop(self, signal: int) -> None:
        """Say that nothing more comes, since a signal asked for that."""
        for rank in self._ranks:
            if self._form:
                dist.send(torch.full((1 + self._form[1],), signal), rank, tag=_NOTE)
            else:
                dist.send(torch.full((_FORM_LENGTH,), signal), rank)

    def close(self) -> None:
        """Wait until all was taken."""
        self._wait(0)

    def _wait(self, left: int) -> None:
        while len(self._under_way) > left:
            for work in self._under_way.popleft()[0]:
                work.wait()


class Receiver:
    """Takes in.

    Args:
        rank: of the worker that hands on.
        wire: the device on which it travels.
        device: where it is wanted.
    """

    def __init__(self, rank: int, wire: torch.device, device: torch.device) -> None:
        self._rank, self._wire, self._device = rank, wire, device

    def batches(self, count: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Sample ids and activation of each of the next ``count`` batches.

        Raises:
            Interrupted: who hands on was stopped by a signal.
        """
        if not count:
            return
        form = torch.empty(_FORM_LENGTH, dtype=torch.int64)
        dist.recv(form, self._rank)
        _check_goes_on(form)
        posted: deque[tuple[Tensor, Tensor, list[Any]]] = deque()
        for number in range(count):
            while len(posted) < min(AHEAD, count - number):
                posted.append(self._posted(form))
            note, body, works = posted.popleft()
            works[0].wait()
            _check_goes_on(note)
            works[1].wait()
            yield note[1:].numpy(), _as_it_lay(body, form).to(self._device)

    def _posted(self, form: Tensor) -> tuple[Tensor, Tensor, list[Any]]:
        note = torch.empty(1 + int(form[1]), dtype=torch.int64)
        body = torch.empty(_bytes_of(form), dtype=torch.uint8, device=self._wire)
        works = [dist.irecv(note, self._rank, tag=_NOTE), dist.irecv(body, self._rank, tag=_BODY)]
        return note, body, works


def round_trip_bytes_s(rank: int, other: int, size_bytes: int, wire: torch.device) -> float:
    """How fast a tensor goes to another worker and comes back, bytes/s; both call it with the same size.

    Args:
        rank: of this worker.
    """
    tensor = torch.zeros(max(size_bytes, 1), dtype=torch.uint8, device=wire)
    taken = []
    for _ in range(_TRIPS):
        begun_s = time.perf_counter()
        for sends in (rank < other, rank > other):
            dist.send(tensor, other) if sends else dist.recv(tensor, other)
        tensor[-1].item()  # an accelerator has done it then
        taken.append(time.perf_counter() - begun_s)
    return 2 * len(tensor) / min(taken[1:])


def _check_goes_on(note: Tensor) -> None:
    if signal := int(note[0]):
        raise Interrupted("stopped with the worker before it", signal)


def _form_of(activation: Tensor, count: int) -> list[int]:
    """No signal, number of samples, type, axes, shape, strides."""
    shape, strides = list(activation.shape), list(activation.stride())
    nothing = [0] * (_AXES_MAX - len(shape))
    return [0, count, _TYPES.index(activation.dtype), len(shape), *shape, *nothing, *strides, *nothing]


def _flat(activation: Tensor) -> Tensor:
    """Its bytes as they lie."""
    order = sorted(range(activation.ndim), key=activation.stride, reverse=True)
    return activation.permute(order).reshape(-1).view(torch.uint8)


def _as_it_lay(body: Tensor, form: Tensor) -> Tensor:
    axes = int(form[3])
    shape, strides = form[4 : 4 + axes].tolist(), form[4 + _AXES_MAX :][:axes].tolist()
    return body.view(_TYPES[int(form[2])]).as_strided(shape, strides)


def _bytes_of(form: Tensor) -> int:
    return int(form[4 : 4 + int(form[3])].prod()) * _TYPES[int(form[2])].itemsize

"""A group of students in processes of their own, over ``torch.distributed``. Only bits travel; we add ourselves.

Each student adds up one slice of all gradients and hands it to the others. For every step it sends its micro-batches'
gradients once and one slice's sum to each other student: with one micro-batch a student as much as a ring's
all-reduce, with k of them (k + 1) / 2 times as much, which is the price of an order that no number of students changes.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch
import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from stillhouse.students.group import Alone, Group, in_order, share_of

# They wait for each other while the run's process looks at the network, or a compiler works.
_PATIENCE = datetime.timedelta(hours=1)


class Joined:
    """One student of a group; use as a context manager.

    Attributes:
        wire: the device on which tensors travel.

    Args:
        meeting: where they find one another; None: they have, and the process's group stands.
        device: where gradients are: on GPUs of their own they travel by NCCL, else by gloo.
        own_device: whether no two students share one.
    """

    def __init__(self, meeting: Store | None, rank: int, size: int, device: torch.device, *, own_device: bool) -> None:
        self.size, self._rank, self._met_here = size, rank, meeting is not None
        self._group: dist.ProcessGroup | None = None
        fast = device.type == "cuda" and own_device
        self.wire = device if fast else torch.device("cpu")
        if meeting is not None:
            backend = "cpu:gloo,cuda:nccl" if fast else "gloo"
            dist.init_process_group(backend, store=meeting, rank=rank, world_size=size, timeout=_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._met_here:
            dist.destroy_process_group()

    def among(self, parts: Sequence[Sequence[int]]) -> Group:
        """This student's group of several, which share no student; alone where it is in none.

        All students call it, with the same ranks in the same order.
        """
        own: Group = Alone()
        for ranks in parts:
            group = dist.new_group(list(ranks), timeout=_PATIENCE)
            if self._rank in ranks:
                part = copy.copy(self)
                part.size, part._rank, part._group = len(ranks), ranks.index(self._rank), group
                own = part
        return own

    def share(self, count: int) -> range:
        """This student's micro-batches."""
        return share_of(self._rank, self.size, count)

    def gathered(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """All rows; shares that differ in length travel padded."""
        lengths = [len(share_of(rank, self.size, count)) for rank in range(self.size)]
        flat = rows.reshape(len(rows), -1)
        sent = self._sent(flat).new_zeros(max(lengths), flat.shape[1])
        sent[: len(flat)] = flat
        came = sent.new_empty(self.size * max(lengths), flat.shape[1])
        dist.all_gather_into_tensor(came.view(torch.uint8), sent.view(torch.uint8), group=self._group)
        kept = [part[:length] for part, length in zip(torch.split(came, max(lengths)), lengths, strict=True)]
        return torch.cat(kept).view(count, *rows.shape[1:]).to(rows.device)

    def summed(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """The sum in order: every student adds one slice."""
        width = rows.shape[1]
        slice_width = -(-width // self.size)
        padded = self._sent(rows).new_zeros(len(rows), self.size * slice_width)
        padded[:, :width] = rows
        sent = padded.view(len(rows), self.size, slice_width).transpose(0, 1).contiguous()
        came = sent.new_empty(count, slice_width)
        lengths = [len(share_of(rank, self.size, count)) for rank in range(self.size)]
        rows_bytes = slice_width * rows.element_size()
        dist.all_to_all_single(
            came.view(-1).view(torch.uint8),
            sent.view(-1).view(torch.uint8),
            [length * rows_bytes for length in lengths],
            [len(rows) * rows_bytes] * self.size,
            group=self._group,
        )
        own = in_order(came)
        total = own.new_empty(self.size * slice_width)
        dist.all_gather_into_tensor(total.view(torch.uint8), own.view(torch.uint8), group=self._group)
        return total[:width].to(rows.device)

    def largest(self, values: list[int]) -> list[int]:
        """The largest of each, never on the device."""
        found = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return found.tolist()

    def _sent(self, rows: torch.Tensor) -> torch.Tensor:
        """Where the rows travel: what is not on the device needs not go there."""
        return rows if rows.device == self.wire else rows.cpu()

"""The noun that everything passes around: a batch of views with their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """B views.

    Attributes:
        sample_ids: [B]; with ``views`` the keys: they fix every bit of ``inputs``.
        views: [B], -1 for the sample as it is.
        inputs: [B, C, H, W] uint8 images, or [B, *shape] float32. Not normalised: each network does its own.
        targets: [B] int64 class numbers.
        partners: [B] int64 class numbers of what was mixed in; None where nothing ever is.
        shares: [B] float32, 0..1, how much of each view is its own sample; None with ``partners``.
    """

    sample_ids: NDArray[np.int64]
    views: NDArray[np.int64]
    inputs: torch.Tensor
    targets: torch.Tensor
    partners: torch.Tensor | None = None
    shares: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def nbytes(self) -> int:
        """Memory of the views, the part that counts."""
        return self.inputs.nbytes

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on a device."""
        if self.inputs.device == device:
            return self
        moved = [None if each is None else each.to(device, non_blocking=True) for each in self._optional]
        inputs, targets = (each.to(device, non_blocking=True) for each in (self.inputs, self.targets))
        return Batch(self.sample_ids, self.views, inputs, targets, *moved)

    def part(self, start: int, stop: int) -> Batch:
        """Rows start..stop-1, not copied."""
        rows = slice(start, stop)
        cut = [None if each is None else each[rows] for each in self._optional]
        return Batch(self.sample_ids[rows], self.views[rows], self.inputs[rows], self.targets[rows], *cut)

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Batch:
        """Any rows, in the order named, copied.

        Args:
            rows: row numbers, or [B] bool, true for the rows wanted; none at all is fine.
        """
        numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.asarray(rows, np.int64)
        index = torch.from_numpy(numbers).to(self.inputs.device)
        chosen = [None if each is None else each[index] for each in self._optional]
        ids, views = self.sample_ids[numbers], self.views[numbers]
        return Batch(ids, views, self.inputs[index], self.targets[index], *chosen)

    @staticmethod
    def join(parts: Sequence[Batch]) -> Batch:
        """Batches of one stream, one after the other, copied."""
        ids, views = (np.concatenate([getattr(each, name) for each in parts]) for name in ("sample_ids", "views"))
        inputs, targets = (torch.cat([getattr(each, name) for each in parts]) for name in ("inputs", "targets"))
        optional = [[tensor for each in parts if (tensor := each._optional[which]) is not None] for which in (0, 1)]
        return Batch(ids, views, inputs, targets, *[torch.cat(each) if each else None for each in optional])

    @property
    def _optional(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return self.partners, self.shares


class UnseenBatch(Batch):
    """A batch of which nobody may ever look at the pixels: they are made when somebody does. Nothing in it is mixed.

    Args:
        make: keys -> pixels.
    """

    def __init__(
        self,
        sample_ids: NDArray[np.int64],
        views: NDArray[np.int64],
        targets: torch.Tensor,
        make: Callable[[NDArray[np.int64], NDArray[np.int64]], torch.Tensor],
    ) -> None:
        # frozen, and without ``inputs``, so that looking for it ends in __getattr__
        vars(self).update(sample_ids=sample_ids, views=views, targets=targets, _make=make)

    def __getattr__(self, name: str) -> Any:
        if name != "inputs":
            raise AttributeError(name)
        made = vars(self)["_make"](self.sample_ids, self.views)
        vars(self)["inputs"] = made
        return made

    @property
    def nbytes(self) -> int:
        """Memory of the pixels, if they were made, else of the keys."""
        return self.inputs.nbytes if "inputs" in vars(self) else self.sample_ids.nbytes + self.views.nbytes

    def part(self, start: int, stop: int) -> Batch:
        """Rows start..stop-1."""
        found = self._unseen(slice(start, stop))
        return super().part(start, stop) if found is None else found

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Batch:
        """Any rows, in the order named."""
        numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.asarray(rows, np.int64)
        found = self._unseen(numbers)
        return super().select(rows) if found is None else found

    def _unseen(self, rows: slice | NDArray[np.int64]) -> Batch | None:
        """These rows, as unseen as the whole; None where it was looked at."""
        if "inputs" in vars(self):
            return None
        return UnseenBatch(self.sample_ids[rows], self.views[rows], self.targets[rows], vars(self)["_make"])

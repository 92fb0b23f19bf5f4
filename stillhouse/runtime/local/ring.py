"""Memory that two processes share, in slots of one size: answers cross in it with one copy on each side.

The run makes it without a name (memfd), so nothing is left behind whoever is killed; seals its size, so that a worker
can't pull it away under a reader; and passes its descriptor. Slots are large, since memory is used only for what was
written. Where there is no memfd (macOS), or a descriptor can't travel (a forwarded socket), answers go inline.
"""

from __future__ import annotations

import mmap
import os

from stillhouse.runtime.local.frames import Bytes

if hasattr(os, "memfd_create"):
    import fcntl

# Addresses, not memory.
RING_BYTES_MAX = 2**30
SLOT_BYTES_MAX = 2**26


def make_ring(slots: int) -> OwnedRing | None:
    """A ring of slots of up to 64 MiB, less where they are many; None where this system has none."""
    if not hasattr(os, "memfd_create"):
        return None
    share = min(SLOT_BYTES_MAX, RING_BYTES_MAX // slots)
    try:
        return OwnedRing(slots, share // mmap.PAGESIZE * mmap.PAGESIZE)
    except (OSError, ValueError):
        # A limit on files, descriptors or addresses: answers go inline.
        return None


class OwnedRing:
    """The run's end: hands out slots, and reads them.

    Attributes:
        fd: what a worker needs to map it.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.fd = os.memfd_create("stillhouse-ring", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, slots * slot_bytes)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._map = mmap.mmap(self.fd, slots * slot_bytes, prot=mmap.PROT_READ)
        except OSError:
            os.close(self.fd)
            raise
        self._free = list(range(slots))

    def take(self) -> int | None:
        """A free slot, the one freed last, which is warm in the cache; None if all are on loan."""
        return self._free.pop() if self._free else None

    def free(self, slot: int) -> None:
        """A slot that was taken may be used again."""
        self._free.append(slot)

    def read(self, slot: int, nbytes: int) -> bytes:
        """A copy of what lies in a slot; ``nbytes`` at most ``slot_bytes``."""
        begin = slot * self.slot_bytes
        return self._map[begin : begin + nbytes]

    def close(self) -> None:
        """Let it go; the memory is freed when the worker has done so too."""
        self._map.close()
        os.close(self.fd)


class BorrowedRing:
    """The worker's end: writes into slots. Takes ``fd`` and closes it."""

    def __init__(self, fd: int, slots: int, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        try:
            self._map = mmap.mmap(fd, slots * slot_bytes)
        finally:
            os.close(fd)

    def write(self, slot: int, data: Bytes) -> None:
        """Put an answer into a slot that was lent; at most ``slot_bytes`` long."""
        begin = slot * self.slot_bytes
        self._map[begin : begin + len(data)] = data

    def close(self) -> None:
        """Let it go."""
        self._map.close()

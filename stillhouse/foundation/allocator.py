"""Keep freed memory instead of giving it back to the kernel after every step.

glibc serves large tensors by ``mmap`` and unmaps them when freed; the next step's activations are then fresh pages,
and touching them costs a fault every 4 kB: a fifth of a training step on a CPU (``docs/lab-log.md`` has the figures).
The setting is for the whole process and can't be undone, so only the command line makes it, never the Python API.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_KEPT_BYTES_MAX = 2**30


def keep_freed_memory() -> bool:
    """Ask the allocator to keep blocks of up to 1 GiB; false where it is not glibc's."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES_MAX)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES_MAX))

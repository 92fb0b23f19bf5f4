"""Where and how numbers are computed: device, threads, precision.

Plain torch, on purpose: one process trains a teacher in fp32 and a student in bf16 side by side, which a
process-wide accelerator state does not allow (decision note 0002).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
import torch.utils.deterministic as deterministic_mode

from stillhouse.foundation.errors import ModelError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str, key: str) -> torch.device:
    """``auto`` to the best device here; others checked.

    Raises:
        ModelError: the device is not here; names the recipe's key.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not available[device.type] or (device.index or 0) >= count:
        raise ModelError(f"{key}: {name} is not available here; use auto or cpu")
    return device


def check_precision(precision: str, device: torch.device, key: str) -> None:
    """Refuse a precision that the device can't do.

    Raises:
        ModelError: fp16 anywhere but on a GPU; names the recipe's key.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ModelError(f"{key}: fp16 needs a CUDA GPU, this run is on {device}; use bf16 or fp32")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a forward pass runs at ``fp32``, ``bf16`` or ``fp16``."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def seed_device(seed: int, device: torch.device) -> None:
    """Seed the generators that a step on ``device`` draws from, and no others.

    ``torch.manual_seed`` would walk over every kind of accelerator, formatting a stack trace for each.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


@contextlib.contextmanager
def fixed_numerics(threads: int) -> Iterator[None]:
    """Same inputs, same bits, while it lasts: a fixed number of threads and no run-to-run choice of kernels.

    Restores the process's settings and generators afterwards.
    """
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    deterministic = torch.are_deterministic_algorithms_enabled()
    fills = deterministic_mode.fill_uninitialized_memory  # type: ignore[attr-defined]
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Only for programs that read what they never wrote; it costs a pass over every new tensor.
    deterministic_mode.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before[1:]
        torch.use_deterministic_algorithms(deterministic)
        deterministic_mode.fill_uninitialized_memory = fills  # type: ignore[attr-defined]

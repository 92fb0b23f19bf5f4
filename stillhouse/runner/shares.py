"""What goes between a run and the students of a group: tensors as raw bytes, and a student's share of a batch.

Nothing is unpickled: a header says type and shape of every tensor, and what does not fit is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import StillhouseError
from stillhouse.knowledge.knowledge import Knowledge

Make = Callable[[NDArray[np.int64], NDArray[np.int64]], Batch]

_TYPES = {
    str(each).removeprefix("torch."): each
    for each in (torch.uint8, torch.int64, torch.float32, torch.float16, torch.bfloat16, torch.bool)
}
_ALIGNED = 64


def pack(tensors: Mapping[str, torch.Tensor]) -> tuple[list[Any], bytes]:
    """([name, type, shape] of each, their bytes)."""
    forms, parts = list[Any](), list[bytes]()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        forms.append([name, str(plain.dtype).removeprefix("torch."), list(plain.shape)])
        content = plain.view(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        parts += [content, bytes(-len(content) % _ALIGNED)]
    return forms, b"".join(parts)


def unpack(forms: Any, body: bytearray) -> dict[str, torch.Tensor]:
    """The tensors that were packed; they live in ``body``.

    Raises:
        StillhouseError: this is not what :func:`pack` makes.
    """
    found, start = dict[str, torch.Tensor](), 0
    try:
        for name, kind, shape in forms:
            dtype = _TYPES[kind]
            if not all(type(side) is int and side >= 0 for side in shape):
                raise ValueError(f"a shape {shape}")
            count = int(np.prod(shape, dtype=np.int64))
            part = (
                torch.frombuffer(body, dtype=dtype, count=count, offset=start) if count else torch.empty(0, dtype=dtype)
            )
            found[str(name)] = part.view(shape)
            size = count * dtype.itemsize
            start += size + -size % _ALIGNED
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StillhouseError(f"a share of {len(body)} bytes makes no sense: {error}") from error
    return found


def pack_share(
    batch: Batch, knowledge: Knowledge, start: int, stop: int, *, pixels: bool = True
) -> tuple[list[Any], bytes]:
    """Rows start..stop-1 of a batch and what is known of them; ``pixels``: whether they go along."""
    part, known = batch.part(start, stop), knowledge.part(start, stop)
    tensors = {
        "sample_ids": torch.from_numpy(part.sample_ids),
        "views": torch.from_numpy(part.views),
        "inputs": part.inputs if pixels else None,
        "targets": part.targets,
        "partners": part.partners,
        "shares": part.shares,
        "logits": known.logits,
        "known": known.known,
        **{f"feature:{name}": value for name, value in known.features.items()},
    }
    return pack({name: tensor for name, tensor in tensors.items() if tensor is not None})


def unpack_share(forms: Any, body: bytearray, make: Make) -> tuple[Batch, Knowledge]:
    """The rows that were packed.

    Args:
        make: the batch of given keys, for its pixels, where they did not come along.

    Raises:
        StillhouseError: these are none.
    """
    found = unpack(forms, body)
    try:
        ids, views = found["sample_ids"].numpy(), found["views"].numpy()
        targets = found["targets"]
    except KeyError as error:
        raise StillhouseError(f"a share without {error}") from error
    inputs = found["inputs"] if "inputs" in found else make(ids, views).inputs
    batch = Batch(ids, views, inputs, targets, found.get("partners"), found.get("shares"))
    features = {name.removeprefix("feature:"): value for name, value in found.items() if name.startswith("feature:")}
    return batch, Knowledge(ids, views, found.get("logits"), features, found.get("known"))

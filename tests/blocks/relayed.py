"""One of three workers in a row: ``python relayed.py FILE RANK HOW``. Each says what it got, as JSON.

HOW: ``all``: to the end, of every kind of activation;
``stopped``: the first one stops after some batches; ``at once``: before any.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from stillhouse.blocks.relay import Receiver, Sender
from stillhouse.foundation.errors import Interrupted

COUNT, STOPS_AT, SIGNAL = 9, 5, 15
WIRE = torch.device("cpu")
KINDS = ("plain", "channels last", "half", "with gaps", "flat")


def activations(kind: str) -> list[torch.Tensor]:
    """As a block would put them out."""
    made = torch.arange(COUNT * 2 * 3 * 4 * 4, dtype=torch.float32).view(COUNT, 2, 3, 4, 4)
    forms = {
        "plain": made,
        "channels last": made,
        "half": made.bfloat16(),
        "with gaps": made[:, :, :, ::2],
        "flat": made.flatten(2),
    }
    layout = torch.channels_last if kind == "channels last" else torch.preserve_format
    return [each.contiguous(memory_format=layout) if kind == "channels last" else each for each in forms[kind]]


def relay(rank: int, how: str, kind: str) -> dict[str, Any]:
    """What this one got, and by which signal it was stopped."""
    sender = Sender([rank + 1], WIRE) if rank < 2 else None
    got, signal = [], 0
    try:
        if rank == 0:
            for number, each in enumerate(activations(kind)):
                if how == "at once" or (how == "stopped" and number == STOPS_AT):
                    raise Interrupted("stopped", SIGNAL)
                assert sender is not None
                sender.send(np.arange(2) + 10 * number, each)
        else:
            for ids, each in Receiver(rank - 1, WIRE, WIRE).batches(COUNT):
                got.append([ids.tolist(), list(each.stride()), str(each.dtype), each.double().sum().item()])
                if sender is not None:
                    sender.send(ids, each)
    except Interrupted as stop:
        signal = stop.exit_code - 128
        if sender is not None:
            sender.stop(signal)
    if sender is not None:
        sender.close()
    return {"got": got, "signal": signal}


def main(file: str, rank: int, how: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(file, 3), rank=rank, world_size=3)
    kinds = KINDS if how == "all" else KINDS[:1]
    print(json.dumps({kind: relay(rank, how, kind) for kind in kinds}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

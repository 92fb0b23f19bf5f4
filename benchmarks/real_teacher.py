"""A teacher that computes, in a worker process with one thread: the benchmarks' own, without a run around it.

It sees the job's images itself, as the workers of a run on one machine do. A program:
``python -m benchmarks.real_teacher ADDRESS NAME``.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bench_online import Job
from benchmarks.fleets import ASK, codec_of
from stillhouse.foundation.allocator import keep_freed_memory
from stillhouse.runtime.local.serving import Served, serve
from stillhouse.teachers.engine import Teacher
from stillhouse.teachers.messages import pack, unpack


def prepare(told: Mapping[str, Any]) -> Served:
    """Load the teacher of the job that lies, pickled, where it is told."""
    job: Job = pickle.loads(Path(told["job"]).read_bytes())
    stream, engine = job.stream(None), Teacher(job.network(job.teacher), ASK, torch.device("cpu"), job.teacher_engine)
    codec = codec_of(job)

    def answer(message: bytes) -> memoryview:
        ids, views, _ = unpack(message)
        return codec.encode(engine.answer(stream.make(ids, views))).reshape(-1).data

    group = int(job.teacher_engine.batch_size)
    question = pack(np.arange(group), np.zeros(group, np.int64))
    answer(question)
    begun = time.perf_counter()
    answer(question)
    view_s = (time.perf_counter() - begun) / group
    return Served({"pace_s": view_s, "device": "cpu", "reads": "mapped"}, 8, answer)


if __name__ == "__main__":
    address, own_name = sys.argv[1:]
    keep_freed_memory()
    torch.set_num_threads(1)
    sys.exit(serve(address, prepare, name=own_name))

"""Answers to encode, and how far a decoded one is from the teacher's."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.knowledge import Knowledge

SHAPES = {"late": (5,), "early": (3, 2, 2)}
FORMS = [
    Encoding("fp32", features="fp32"),
    Encoding("fp16", features="fp16"),
    Encoding("top", 1, "int8"),
    Encoding("top", 4, "int8"),
    Encoding("top", 10, "fp16"),
]
few = settings(max_examples=60, deadline=None)


def floats(largest: float) -> st.SearchStrategy[float]:
    return st.floats(-float(np.float32(largest)), float(np.float32(largest)), width=32)


def answer(logits: NDArray[np.float32] | torch.Tensor, **features: NDArray[np.float32] | torch.Tensor) -> Knowledge:
    ids = np.arange(len(logits), dtype=np.int64) + 100
    return Knowledge(
        ids, ids % 7, torch.as_tensor(logits), {name: torch.as_tensor(each) for name, each in features.items()}
    )


def random_answer(rows: int, seed: int = 0, classes: int = 10) -> Knowledge:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 4, (rows, classes)).astype(np.float32)
    features = {name: generator.normal(0, 2, (rows, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    return answer(logits, **features)


def codec(encoding: Encoding, classes: int = 10) -> Codec:
    return Codec(Ask(features=tuple(SHAPES)), encoding, classes, SHAPES)


def top(logits: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    decoded = Codec(Ask(), Encoding("top", k), logits.shape[1], {}).round_trip(answer(logits)).logits
    assert decoded is not None
    return decoded.numpy()


def only_feature(values: NDArray[np.float32], form: str) -> tuple[Codec, Knowledge]:
    one = Codec(Ask(False, ("f",)), Encoding(features=form), 3, {"f": values.shape[1:]})  # type: ignore[arg-type]
    return one, answer(np.zeros((len(values), 3), np.float32), f=values)


def log_softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))


def kl(teacher: NDArray[np.float32], target: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    log_p, log_q = log_softmax(teacher, temperature), log_softmax(target, temperature)
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)

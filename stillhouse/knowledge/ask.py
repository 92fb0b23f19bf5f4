"""The question: what a student wants to know about each view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stillhouse.foundation.files import digest_json


@dataclass(frozen=True)
class Ask:
    """One question, put for every view alike.

    Attributes:
        logits: the teacher's logits [B, K], before any temperature.
        features: module names of the teacher whose activations are wanted.
        dtype: of the answer's tensors.
    """

    logits: bool = True
    features: tuple[str, ...] = ()
    dtype: Literal["float32", "float16"] = "float32"

    @property
    def digest(self) -> str:
        """Hex; equal digests mean the same question."""
        return digest_json([self.logits, sorted(self.features), self.dtype])

    def __bool__(self) -> bool:
        return self.logits or bool(self.features)

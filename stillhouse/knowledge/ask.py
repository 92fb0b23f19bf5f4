"""The question: what a student wants to know about each view."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.foundation.files import digest_json


@dataclass(frozen=True)
class Ask:
    """One question, put for every view alike.

    Attributes:
        logits: the teacher's logits [B, K], before any temperature.
        features: module names of the teacher whose activations are wanted.
    """

    logits: bool = True
    features: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Hex; equal digests mean the same question."""
        return digest_json([self.logits, sorted(self.features)])

    def covers(self, other: Ask) -> bool:
        """Whether an answer to this question answers the other, too."""
        return self.logits >= other.logits and set(other.features) <= set(self.features)

    def __bool__(self) -> bool:
        return self.logits or bool(self.features)


NOTHING = Ask(logits=False)
"""The question of a student who learns from labels alone."""

"""A teacher's answer as a row of bytes of fixed width, and back.

Every source hands out :meth:`Codec.round_trip` of an answer, whether a teacher was asked or a store was read, so that a
run's result doesn't depend on which. A row's bytes are therefore a function of that row's numbers alone, whatever the
batch; and taking a decoded answer through the codec again changes nothing.

What is lost: nothing with fp32; with fp16 at most 2^-11 of a number (2^-25 where it is below 2^-14);
``encode_logits`` and ``encode_features`` tell it for the other forms. Cost: about 0.05 ms for 128 rows of 10 logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.foundation.errors import RecipeError, StillhouseError
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode_features import decode_int8, encode_int8, scale_shape
from stillhouse.knowledge.encode_logits import (
    decode_top,
    encode_top,
    half_kl_bound,
    k_for_mass,
    top_fields,
    top_kl_bound,
)
from stillhouse.knowledge.knowledge import Knowledge

__all__ = ["LAYOUT", "Codec", "Encoding", "k_for_mass"]

LAYOUT = 1
"""Version of the rows' layout and meaning; rows of another one can't be read."""

_TYPES = {"fp32": "<f4", "fp16": "<f2", "int8": "|i1"}
_LARGEST = {"fp32": float(np.finfo(np.float32).max), "fp16": float(np.finfo(np.float16).max)}


@dataclass(frozen=True)
class Encoding:
    """The form of an answer's parts.

    Attributes:
        logits: ``fp32`` (lossless), ``fp16``, or ``top``: the ``top`` largest and the log-mean-exp of the rest.
        top: how many logits are kept; 0 unless ``logits`` is ``top``.
        features: form of activations.
    """

    logits: Literal["fp32", "fp16", "top"] = "fp32"
    top: int = 0
    features: Literal["fp32", "fp16", "int8"] = "fp16"

    def __post_init__(self) -> None:
        if self.logits not in ("fp32", "fp16", "top") or self.features not in _TYPES:
            raise ValueError(f"unknown form in {self}: logits are fp32, fp16 or top; features fp32, fp16 or int8")
        if (self.top > 0) != (self.logits == "top") or self.top < 0:
            raise ValueError(
                f"logits '{self.logits}' with top = {self.top}: give a number of kept logits with 'top' only"
            )

    def describe(self) -> dict[str, str | int]:
        """Plain JSON, for a store's manifest; equal where rows of the same question mean the same."""
        return {"layout": LAYOUT, "logits": self.logits, "top": self.top, "features": self.features}


class Codec:
    """Turns answers to one question into rows and back.

    Args:
        ask: the question; what an answer holds beyond it is left out.
        encoding: the form.
        classes: K.
        feature_shapes: shape [C, H, W] or [D] of one sample's activation, for every module in ``ask.features``.

    Attributes:
        row: packed, little-endian numpy type of a row. Fields: ``logits``, or ``top_index``, ``top_logit``, ``top_gap``
            and (if k < K) ``rest_gap``; then by module, sorted, ``feature:NAME`` and, for int8, ``scale:NAME``.

    Raises:
        RecipeError: more logits are to be kept than there are classes.
    """

    def __init__(self, ask: Ask, encoding: Encoding, classes: int, feature_shapes: Mapping[str, Sequence[int]]) -> None:
        if ask.logits and encoding.top > classes:
            raise RecipeError(
                f"knowledge.logits: the {encoding.top} largest logits are to be kept, but there are only {classes} "
                f"classes: set k to at most {classes}"
            )
        self._ask, self._encoding, self._classes = ask, encoding, classes
        self._shapes = {name: tuple(feature_shapes[name]) for name in sorted(set(ask.features))}
        fields: list[tuple[str, str, tuple[int, ...]]] = []
        if ask.logits and encoding.logits == "top":
            fields += top_fields(classes, encoding.top)
        elif ask.logits:
            fields.append(("logits", _TYPES[encoding.logits], (classes,)))
        for name, shape in self._shapes.items():
            fields.append((f"feature:{name}", _TYPES[encoding.features], shape))
            if encoding.features == "int8":
                fields.append((f"scale:{name}", "<f4", scale_shape(shape)))
        self.row: np.dtype[Any] = np.dtype(fields)
        kinds = {name: (np.dtype(kind), shape) for name, kind, shape in fields}
        stops = np.cumsum([0, *(self.row[name].itemsize for name in kinds)]).tolist()
        self._fields = {name: (*span, *kinds[name]) for name, span in zip(kinds, pairwise(stops), strict=True)}

    @property
    def fields(self) -> list[tuple[str, str, list[int]]]:
        """The row as a store's manifest tells it: name, numpy type, shape of each field."""
        kinds = {name: self.row[name] for name in self.row.names or ()}
        return [(name, kind.base.str, list(kind.shape)) for name, kind in kinds.items()]

    def encode(self, knowledge: Knowledge) -> NDArray[np.uint8]:
        """Rows [B, row.itemsize] of an answer on any device.

        Raises:
            StillhouseError: the answer is not one to this codec's question, or has a number that is not finite or that
                its form can't hold; names sample and view.
        """
        parts: dict[str, Tensor] = {}
        if self._ask.logits:
            logits = self._part(knowledge, "logits", knowledge.logits, (self._classes,))
            form = self._encoding.logits
            _check(knowledge, logits, "logits", "fp16" if form == "fp16" else "fp32")
            if form == "top":
                parts |= encode_top(logits, self._encoding.top)
                _check(knowledge, parts.get("rest_gap", parts["top_gap"]), "range of logits", "fp16")
            else:
                parts["logits"] = logits.half() if form == "fp16" else logits
        half = self._encoding.features == "fp16"
        for name, shape in self._shapes.items():
            features = self._part(knowledge, f"feature '{name}'", knowledge.features.get(name), shape)
            _check(knowledge, features, f"feature '{name}'", "fp16" if half else "fp32")
            if self._encoding.features == "int8":
                parts[f"feature:{name}"], parts[f"scale:{name}"] = encode_int8(features)
            else:
                parts[f"feature:{name}"] = features.half() if half else features
        return self._pack(parts, len(knowledge.sample_ids))

    def decode(
        self,
        rows: NDArray[np.uint8],
        sample_ids: NDArray[np.int64],
        views: NDArray[np.int64],
        known: NDArray[np.bool_] | None = None,
    ) -> Knowledge:
        """The answer in rows [B, row.itemsize]: dense fp32 tensors on the CPU that share no memory with the rows.

        Args:
            known: [B], false where a row, of zeros, stands for no answer; None: all are answers.
        """
        parts = self._unpack(rows)
        logits = None
        if self._ask.logits:
            top = self._encoding.logits == "top"
            logits = torch.from_numpy(decode_top(parts, self._classes) if top else parts["logits"]).float()
        features = {}
        for name in self._shapes:
            part = parts[f"feature:{name}"]
            if self._encoding.features == "int8":
                part = decode_int8(part, parts[f"scale:{name}"])
            features[name] = torch.from_numpy(part).float()
        return Knowledge(sample_ids, views, logits, features, None if known is None else torch.from_numpy(known))

    def round_trip(self, knowledge: Knowledge) -> Knowledge:
        """What any reader will see of an answer."""
        return self.decode(self.encode(knowledge), knowledge.sample_ids, knowledge.views)

    def kl_bound(self, rows: NDArray[np.uint8], temperature: float) -> NDArray[np.float64]:
        """For each row [B] how many nats KL(p_T || q_T) can be at most: the teacher's logits against the decoded ones.

        Args:
            rows: [B, row.itemsize], of a question that asks for logits.
            temperature: T > 0.
        """
        parts = self._unpack(rows)
        if self._encoding.logits == "top":
            return top_kl_bound(parts, self._classes, temperature)
        if self._encoding.logits == "fp16":
            return half_kl_bound(parts["logits"].astype(np.float64), temperature)
        return np.zeros(len(rows))

    def _part(self, knowledge: Knowledge, what: str, part: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        wanted = (len(knowledge.sample_ids), *shape)
        if part is None or tuple(part.shape) != wanted:
            found = "none" if part is None else f"shape {list(part.shape)}"
            raise StillhouseError(
                f"a teacher's answer should hold {what} of shape {list(wanted)}, but there is {found}"
            )
        return part.detach().float()

    def _pack(self, parts: Mapping[str, Tensor], count: int) -> NDArray[np.uint8]:
        rows = np.empty((count, self.row.itemsize), np.uint8)
        for name, (start, stop, kind, shape) in self._fields.items():
            part = parts[name].cpu().numpy().astype(kind, copy=False)
            flat = np.ascontiguousarray(part).reshape(count, math.prod(shape))
            rows[:, start:stop] = flat.view(np.uint8)
        return rows

    def _unpack(self, rows: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Fields by name, [B, *shape] each: copies, in the machine's byte order."""
        if rows.ndim != 2 or rows.shape[1] != self.row.itemsize or rows.dtype != np.uint8:
            raise ValueError(f"rows of {rows.dtype} {rows.shape} for a codec of {self.row.itemsize} bytes a row")
        return {
            name: np.array(rows[:, start:stop], order="C")
            .view(kind)
            .astype(kind.newbyteorder("="), copy=False)
            .reshape(len(rows), *shape)
            for name, (start, stop, kind, shape) in self._fields.items()
        }


def _check(knowledge: Knowledge, part: Tensor, what: str, form: Literal["fp32", "fp16"]) -> None:
    """Refuse a part [B, ...] with a number that is not finite or that ``form`` can't hold."""
    if part.numel() == 0:
        return
    low, high = torch.aminmax(part)
    if -_LARGEST[form] <= low.item() and high.item() <= _LARGEST[form]:  # not so if there is a NaN
        return
    flat = part.reshape(len(part), -1)
    wrong = ~(flat.abs() <= _LARGEST[form])
    row = int(wrong.any(dim=1).nonzero()[0])
    value = flat[row][wrong[row]][0].item()
    where = f"{what} of sample {knowledge.sample_ids[row]}, view {knowledge.views[row]}"
    if math.isfinite(value):
        raise StillhouseError(f"{where}: {value:g} is beyond 65504, the largest number of fp16; keep them as fp32")
    raise StillhouseError(
        f"{where}: {value} in the teacher's answer, which must be finite: look for broken weights or inputs, or let "
        "the teacher compute in fp32 or bf16 instead of fp16"
    )

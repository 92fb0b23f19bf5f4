"""A teacher that answers batches: frozen, in evaluation mode, at one fixed engine.

Views go through the network in micro-batches of one fixed size, the last one filled up with repeats of its last row: so
an answer does not depend on how views were grouped, provided that the engine is *steady* (a row's bits don't depend on
its place in a micro-batch), which a trial measures (``teachers.trial``).

The teacher computes on modules of its own. At fp32, contiguous, on the network's device they share its weights and cost
nothing; bf16 and fp16 cost half the weights' bytes again, channels-last and another device all of them, and a compiled
engine may fold a copy into its graph. Weights are cast, not autocast: no cast is left to be done for each answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import ModelError
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.compiled import compiled
from stillhouse.models.ensemble import parts
from stillhouse.models.network import Network
from stillhouse.models.placement import check_precision
from stillhouse.models.taps import Taps
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.teachers.onnx_engine import OnnxNetwork

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher:
    """A network that answers one question about any batch.

    Args:
        network: stays as it is: mode, type, layout, device. Its weights must not change while the teacher answers.
        ask: what is wanted of each view.
        device: where answers are computed and lie.
        settings: with nothing left ``auto``; precision fp32 leaves the network's own type.

    Raises:
        ModelError: the question names a module that the network does not have, the network can't be copied, or the
            engine can't be had here.
    """

    def __init__(self, network: Network, ask: Ask, device: torch.device, settings: TeacherEngineSection) -> None:
        assert settings.settled and isinstance(settings.batch_size, int), "a trial settles what is auto"
        check_precision(settings.precision, device, "teacher.engine.precision")
        self.ask = ask
        self._device, self._size, self._layout = device, settings.batch_size, _layout(settings)
        own = own_modules(network, device, settings)
        self._taps = Taps(own, ask.features)
        self._forward: Callable[[torch.Tensor], torch.Tensor]
        if settings.runtime == "onnx":
            check_onnx_fits(ask, device, settings)
            self._forward = OnnxNetwork(own)
        else:
            self._forward = compiled(own, frozen=True) if settings.compile else own

    @torch.no_grad()
    def answer(self, batch: Batch) -> Knowledge:
        """Knowledge aligned with the batch, fp32, on the teacher's device.

        Args:
            batch: of any size. What doesn't fill a micro-batch costs as much as a full one.
        """
        rows, size = batch.inputs.to(self._device, non_blocking=True), self._size
        pieces = [self._micro(rows[start : start + size]) for start in range(0, max(len(rows), 1), size)]
        logits = torch.cat([piece[0] for piece in pieces])[: len(rows)] if self.ask.logits else None
        features = {name: torch.cat([piece[1][name] for piece in pieces])[: len(rows)] for name in self._taps.names}
        return Knowledge(batch.sample_ids, batch.views, logits, features)

    def close(self) -> None:
        """Let the modules and what they kept go."""
        self._taps.close()

    def _micro(self, rows: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Logits and features [size, ...] of at most ``size`` rows; of none, too, for their shapes."""
        missing = self._size - len(rows)
        if missing:
            last = rows[-1:] if len(rows) else rows.new_zeros(1, *rows.shape[1:])
            rows = torch.cat([rows, last.expand(missing, *rows.shape[1:])])
        # One layout for all: what a batch looked like in memory must not choose the kernels.
        rows = rows.contiguous(memory_format=self._layout if rows.ndim == 4 else torch.contiguous_format)
        logits = self._forward(rows)
        return logits.float(), {name: value.float() for name, value in self._taps.read().items()}


def own_modules(network: Network, device: torch.device, settings: TeacherEngineSection) -> Network:
    """Modules that share the network's weights where type, layout and device allow; frozen, in evaluation mode.

    Raises:
        ModelError: the network's modules can't be copied.
    """
    shared: dict[int, object] = {id(each): nn.Parameter(each.detach(), False) for each in network.parameters()}
    shared |= {id(each): each.detach() for each in network.buffers()}
    try:
        own = copy.deepcopy(network, shared)
    except Exception as error:  # whatever a person's own module keeps: a lock, an open file, a tensor with a history
        raise ModelError(
            f"the teacher can't be copied ({type(error).__name__}: {error}): let it hold modules, parameters, buffers "
            "and plain values only"
        ) from error
    own.eval().to(device=device)
    if settings.precision in _DTYPES:
        for part in parts(own):
            part.cast_body(_DTYPES[settings.precision])
    own.to(memory_format=_layout(settings))  # type: ignore[call-overload]
    return own


def check_onnx_fits(ask: Ask, device: torch.device, settings: TeacherEngineSection) -> None:
    """Refuse what ONNX Runtime is not for.

    Raises:
        ModelError: names the recipe's key and the mend.
    """
    wrong = [
        ("teacher.engine.precision", settings.precision, settings.precision != "fp32"),
        ("teacher.engine.compile", "true", bool(settings.compile)),
        ("compute.device", str(device), device.type != "cpu"),
        ("objective.features", ", ".join(ask.features), bool(ask.features)),
    ]
    for key, value, refused in wrong:
        if refused:
            raise ModelError(
                f"teacher.engine.runtime: onnx answers with logits alone, in fp32, on the CPU, but {key} is {value}: "
                "take that back, or say runtime: torch"
            )


def _layout(settings: TeacherEngineSection) -> torch.memory_format:
    return torch.channels_last if settings.channels_last else torch.contiguous_format

"""A teacher that answers batches: frozen, in evaluation mode, at one fixed precision."""

from __future__ import annotations

import torch

from stillhouse.data.batch import Batch
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.network import Network
from stillhouse.models.placement import autocast
from stillhouse.models.taps import Taps


class Teacher:
    """A network that answers one question about any batch.

    Args:
        network: moved to ``device``, frozen and put into evaluation mode, for good.
        ask: what is wanted of each view.
        precision: ``fp32``, ``bf16`` or ``fp16`` of the forward pass; answers are always fp32.

    Raises:
        ModelError: the question names a module that the network does not have.
    """

    def __init__(self, network: Network, ask: Ask, device: torch.device, precision: str) -> None:
        self._network = network.to(device).eval().requires_grad_(False)
        self.ask = ask
        self._device, self._precision = device, precision
        self._taps = Taps(network, ask.features)

    @torch.no_grad()
    def answer(self, batch: Batch) -> Knowledge:
        """Knowledge aligned with the batch, on the teacher's device."""
        with autocast(self._precision, self._device):
            logits = self._network(batch.to(self._device).inputs)
        features = {name: tensor.float() for name, tensor in self._taps.read().items()}
        return Knowledge(batch.sample_ids, batch.views, logits.float() if self.ask.logits else None, features)

    def close(self) -> None:
        """Take the taps off the network."""
        self._taps.close()

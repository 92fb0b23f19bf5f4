"""Taps: what named modules of a network's body put out during a forward pass.

A forward hook at each module keeps its output until it is read: the memory of those activations is held no longer
than that. Open the taps before the first compiled call; a graph compiled without them does not know them. A
module used several times in one pass shows its last output. A tap holds the tensor itself, not a copy: an in-place
operation right behind the module (``ReLU(inplace=True)``) changes what is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import torch
from torch import nn

from stillhouse.foundation.errors import ModelError, nearest
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network, evaluating


class Taps:
    """Reads activations at modules of a network's body, or of any other module.

    Use as a context manager, or call :meth:`close`.

    Args:
        names: as ``get_submodule`` knows them, e.g. ``stage2`` or ``stage2.0.first``.

    Raises:
        ModelError: a name is unknown; says the nearest one. In the forward pass: a module's output is not one tensor.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self.names = tuple(dict.fromkeys(names))
        body = network.body if isinstance(network, Network) else network
        modules = {name: _find(body, name) for name in self.names}
        self._activations: dict[str, torch.Tensor] = {}
        self._handles = [
            module.register_forward_hook(_keeper(name, self._activations)) for name, module in modules.items()
        ]

    def read(self) -> dict[str, torch.Tensor]:
        """The activations of the last forward pass in the order of ``names``, [B, ...] each, and forget them.

        Raises:
            ModelError: the pass did not reach a module, or there was none since the last read.
        """
        missing = [name for name in self.names if name not in self._activations]
        if missing:
            raise ModelError(
                f"nothing was seen at '{missing[0]}': no forward pass since the last read went through it, or the "
                "network was compiled and run before these taps were opened"
            )
        taken = {name: self._activations[name] for name in self.names}
        self._activations.clear()
        return taken

    def close(self) -> None:
        """Remove the hooks and forget what they kept."""
        for handle in self._handles:
            handle.remove()
        self._activations.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def shapes(network: Network, names: Sequence[str], interface: Interface) -> dict[str, tuple[int, ...]]:
    """The shape of each tap's output for one sample, without the batch dimension; costs one forward pass.

    Raises:
        ModelError: as :class:`Taps`.
    """
    with Taps(network, names) as taps, evaluating(network):
        network(interface.zeros(1, network.device))
        return {name: tuple(value.shape[1:]) for name, value in taps.read().items()}


def _find(body: nn.Module, name: str) -> nn.Module:
    known = [each for each, _ in body.named_modules() if each]
    if name in known:
        return body.get_submodule(name)
    close = difflib.get_close_matches(name, known, n=1)
    top = [each for each, _ in body.named_children()]
    raise ModelError(f"{type(body).__name__} has no module '{name}': {nearest(name, close or top)}")


def _keeper(name: str, activations: dict[str, torch.Tensor]) -> Callable[[nn.Module, object, object], None]:
    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, torch.Tensor):
            raise ModelError(
                f"a tap reads one tensor, but '{name}' puts out {type(output).__name__}: tap another module"
            )
        activations[name] = output

    return keep

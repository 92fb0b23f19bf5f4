"""A network as a graph of operations, by ``torch.fx``: the ground on which cut points are looked for.

Modules are taken whole where nothing in them is to be cut (norms, activations, pooling), where their forward reads
``self.training`` (a trace would freeze it), and where they can't be traced: the innermost such module becomes one node,
the rest of the network stays open.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from stillhouse.foundation.errors import ModelError
from stillhouse.models.network import evaluating


@dataclass(frozen=True)
class Traced:
    """A network's graph.

    Attributes:
        network: the one that was traced, in whatever mode it is.
        graph: its operations in the order in which they run; ``node.meta["tensor_meta"]`` has the shape of each output.
        whole: modules that could not be looked into, and why.
    """

    network: nn.Module
    graph: fx.Graph
    whole: Mapping[str, str]


def has_weights(module: nn.Module) -> bool:
    """Whether there is a matrix or a kernel among its parameters; norms, scales and biases are none."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def traced(network: nn.Module, inputs: torch.Tensor) -> Traced:
    """Trace a network in evaluation mode.

    Args:
        inputs: a batch like those it will get, on its device.

    Raises:
        ModelError: its own forward decides by values, or wants something else than one tensor.
    """
    tracer = _Tracer()
    with evaluating(network):
        try:
            defaults = _defaults(network)
            module = fx.GraphModule(network, tracer.trace(network, defaults))
        except Exception as error:
            raise ModelError(f"{type(network).__name__}: its forward can't be traced: {_words(error)}") from error
        graph = module.graph
        graph.eliminate_dead_code()
        places = [node for node in graph.nodes if node.op == "placeholder"]
        for place in places[len(places) - len(defaults) :]:
            _forget(graph, place)  # its value is in the graph; left is a check of it
        module.recompile()
        if len(places) - len(defaults) != 1:
            named = ", ".join(node.name for node in places)
            raise ModelError(f"{type(network).__name__} takes several inputs ({named}); blocks have one")
        try:
            ShapeProp(module).propagate(inputs)
        except Exception as error:
            raise ModelError(
                f"{type(network).__name__}: its trace does not run on {list(inputs.shape)}: {_words(error)}"
            ) from error
    return Traced(network, graph, tracer.whole)


class _Tracer(fx.Tracer):
    """Looks into modules as far as it can."""

    def __init__(self) -> None:
        super().__init__()
        self.whole: dict[str, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            module_qualified_name in self.whole
            or not any(has_weights(child) for child in m.children())
            or "training" in getattr(getattr(type(m).forward, "__code__", None), "co_names", ())
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        last, stack = next(iter(reversed(self.graph.nodes))), OrderedDict(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            while (node := next(iter(reversed(self.graph.nodes)))) is not last:
                self.graph.erase_node(node)
            self.module_stack = stack
            self.whole[self.path_of_module(m)] = _words(error)
            return super().call_module(m, forward, args, kwargs)


def _defaults(network: nn.Module) -> dict[str, Any]:
    """Arguments of a forward that nobody need give."""
    arguments = inspect.signature(network.forward).parameters.values()
    return {each.name: each.default for each in arguments if each.default is not each.empty}


def _forget(graph: fx.Graph, node: fx.Node) -> None:
    for user in list(node.users):
        _forget(graph, user)
    graph.erase_node(node)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

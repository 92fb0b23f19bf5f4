"""What a node of a graph does, as far as cutting cares: norm, activation, mere passing on."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import fx, nn
from torch.nn.modules import activation

Modules = Mapping[str, nn.Module]

_FUNCTIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "hardtanh": nn.Hardtanh,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
# Classes of timm; its others go by the names that torch has.
_OTHERS = frozenset(("Swish", "SwishMe", "HardSwish", "HardSwishMe", "HardSigmoid", "HardMish", "MishMe", "QuickGELU"))
_ACTIVATIONS = frozenset(activation.__all__) - {"MultiheadAttention", "Softmax", "LogSoftmax", "Softmax2d"} | _OTHERS
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm")
_PASSING = ("Identity", "Dropout", "DropPath", "StochasticDepth", "DropBlock", "dropout", "contiguous")


def is_finish(node: fx.Node, modules: Modules) -> bool:
    """Whether it is a norm or an activation: what finishes the operation before it."""
    return is_norm(node, modules) or _kind(node, modules) in _ACTIVATIONS or _function(node) is not None


def is_norm(node: fx.Node, modules: Modules) -> bool:
    """Whether it is a norm, with an activation or without."""
    kind = _kind(node, modules)
    return kind in _NORMS or (node.op == "call_module" and "Norm" in kind)


def passes(node: fx.Node, modules: Modules) -> bool:
    """Whether it hands on what it gets, but for noise while training."""
    return _kind(node, modules).startswith(_PASSING)


def changes(node: fx.Node, source: fx.Node, modules: Modules) -> bool:
    """Whether it writes into what it gets from another one: then that is nobody's output any more."""
    if node.args[:1] != (source,):
        return False
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False)) and not passes(node, modules)
    return _kind(node, {}).endswith("_") or (node.op == "call_function" and node.kwargs.get("inplace") is True)


def activation_of(node: fx.Node, modules: Modules) -> nn.Module | None:
    """A copy of the activation whose output a node's output is; None: it ends in none, so any sign can come."""
    while passes(node, modules):
        node = node.all_input_nodes[0]
    if (function := _function(node)) is not None:
        return function()
    if node.op != "call_module":
        return None
    module = modules[str(node.target)]
    if _kind(node, modules) in _ACTIVATIONS:
        return copy.deepcopy(module)
    inner = getattr(module, "act", None)  # timm's norms with an activation
    return copy.deepcopy(inner) if isinstance(inner, nn.Module) and type(inner).__name__ in _ACTIVATIONS else None


def _function(node: fx.Node) -> type[nn.Module] | None:
    return None if node.op == "call_module" else _FUNCTIONS.get(_kind(node, {}))


def _kind(node: fx.Node, modules: Modules) -> str:
    if node.op == "call_module":
        return type(modules[str(node.target)]).__name__
    return str(getattr(node.target, "__name__", node.target))

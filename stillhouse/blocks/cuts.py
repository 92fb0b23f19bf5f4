"""Where a network may be cut: one tensor crosses, and a replacement can produce it.

A block never ends between an operation and its norm or activation: what a convolution hands to a norm has any sign and
scale, and a replacement that ends like other blocks could not reach it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx, nn
from torch.nn.modules.container import ModuleDict, ModuleList, Sequential

from stillhouse.blocks.graph import Traced, has_weights
from stillhouse.blocks.ops import Modules, changes, is_finish, passes

_CONTAINERS = (Sequential, ModuleList, ModuleDict)


def operations(graph: fx.Graph) -> list[fx.Node]:
    """What is done, in the order in which it runs."""
    return [node for node in graph.nodes if node.op not in ("placeholder", "get_attr", "output")]


def cut_points(traced: Traced) -> list[fx.Node]:
    """Operations after which only their own output is still wanted, in the order in which they run; the last is the
    network's output.
    """
    modules = dict(traced.network.named_modules())
    at = {node: index for index, node in enumerate(traced.graph.nodes)}
    found, furthest = [], -1
    for node in traced.graph.nodes:
        alone = node.op not in ("placeholder", "get_attr", "output") and furthest <= at[node]
        reachable = node.meta.get("type") is torch.Tensor and not _is_unfinished(node, modules)
        if alone and reachable and not any(changes(user, node, modules) for user in node.users):
            found.append(node)
        if node.op != "get_attr":
            furthest = max([furthest, *(at[user] for user in node.users)])
    return found


def _is_unfinished(node: fx.Node, modules: Modules) -> bool:
    follows = list(_followers(node, modules))
    return bool(follows) and all(is_finish(each, modules) for each in follows)


def _followers(node: fx.Node, modules: Modules) -> Iterable[fx.Node]:
    """What uses an output, where that is not merely passed on."""
    for user in node.users:
        if passes(user, modules):
            yield from _followers(user, modules)
        else:
            yield user


def path_of(node: fx.Node) -> str:
    """The innermost module in which an operation happens; "" for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(node.target) if node.op == "call_module" else ([path for path, _ in stack.values()] or [""])[-1]


def units(network: nn.Module) -> set[str]:
    """Modules that the network's author built it of: residual blocks, inverted bottlenecks, inception modules.

    They are modules of one's own class with two kernels or more that stand in a row with others; of such modules within
    one another the outermost that does not hold several of a kind, as a stage does.
    """
    modules = dict(network.named_modules())
    candidates = {name for name in modules if name and _may_be_unit(name, modules)}
    stages = set()
    for name in candidates:
        inner = [type(modules[other]) for other in candidates if other.startswith(f"{name}.")]
        if len(inner) > len(set(inner)):
            stages.add(type(modules[name]))
    left = {name for name in candidates if type(modules[name]) not in stages}
    return {name for name in left if not any(name.startswith(f"{other}.") for other in left)}


def _may_be_unit(name: str, modules: Modules) -> bool:
    module, parent = modules[name], modules[name.rpartition(".")[0]]
    if isinstance(module, _CONTAINERS) or sum(_is_kernel(each) for each in module.modules()) < 2:
        return False
    return isinstance(parent, _CONTAINERS) or sum(type(each) is type(module) for each in parent.children()) > 1


def _is_kernel(module: nn.Module) -> bool:
    return not list(module.children()) and has_weights(module)


def within(path: str, names: set[str]) -> str | None:
    """Which of some modules, none inside another, holds a module; None: none does."""
    parts = path.split(".")
    return next((name for end in range(1, len(parts) + 1) if (name := ".".join(parts[:end])) in names), None)

"""A network as a row of blocks: one tensor goes into each, one comes out, and together they are the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import fx, nn

from stillhouse.blocks.cuts import cut_points, operations, path_of, units, within
from stillhouse.blocks.graph import Traced, traced
from stillhouse.blocks.ops import activation_of, is_finish, passes
from stillhouse.foundation.errors import ModelError
from stillhouse.models.network import evaluating
from stillhouse.recipe.architectures import Cut


@dataclass(frozen=True)
class Block:
    """A stretch of a network. Its modules are the network's own, under their own names.

    Attributes:
        name: of the module that it is, or of its first one with weights; unique.
        lead: what comes before anything with weights, pooling for one: it stays whatever replaces the block.
        core: the rest, which may be replaced.
        activation: a copy of what its output comes out of; None: it has any sign.
        in_shape, out_shape: of ``core``, without the batch.
        closed: modules in it that could not be looked into, by name, and why: no cut goes through them.
        end: the innermost module behind which it ends: what a recipe calls this cut.
    """

    name: str
    lead: nn.Module
    core: nn.Module
    activation: nn.Module | None
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    closed: Mapping[str, str]
    end: str

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Lead and core."""
        outputs: torch.Tensor = self.core(self.lead(inputs))
        return outputs


def partition(network: nn.Module, inputs: torch.Tensor, granularity: Cut = "block") -> tuple[Block, ...]:
    """Cut a network into blocks.

    Args:
        network: its body, without preprocessing; blocks share its modules.
        inputs: a batch like those it will get, of two samples at least.
        granularity: ``layer``: wherever it can be cut; ``block``: never inside what its author built it of; ``stage``:
            where the resolution falls; or names of modules that end a block each.

    Raises:
        ModelError: it can't be traced, or can't be cut at all, or not where the names say; or the blocks in a row don't
            give what the network gives.
    """
    found = traced(network, inputs)
    points = cut_points(found)
    ends = _chosen(found, points, granularity)
    stretches = _merged(found, _between(found.graph, ends))
    if len(stretches) < 2:
        raise ModelError(_one_block(found, points, ends, granularity))
    blocks = tuple(_blocks(found, stretches))
    _check_same(network, blocks, inputs)
    return blocks


def rejoined(blocks: Sequence[Block]) -> nn.Sequential:
    """The network again."""
    return nn.Sequential(*(nn.Sequential(each.lead, each.core) for each in blocks))


Stretch = list[fx.Node]


def _chosen(found: Traced, points: list[fx.Node], granularity: Cut) -> list[fx.Node]:
    """Cut points to use; the last one is the network's end."""
    last = operations(found.graph)[-1]
    inner = [node for node in points if node is not last]
    if not isinstance(granularity, str):
        return [*_named(found, inner, granularity), last]
    if granularity != "layer":
        whole = units(found.network)
        inner = [node for node in inner if not _is_inside(node, whole)]
    if granularity == "stage":
        inner = [node for node, after in pairwise([*inner, last]) if _size(node) != _size(after)]
    return [*inner, last]


def _is_inside(node: fx.Node, whole: set[str]) -> bool:
    """Whether a cut after a node is inside one of some modules."""
    unit = within(path_of(node), whole)
    return unit is not None and any(within(path_of(user), whole) == unit for user in node.users)


def _size(node: fx.Node) -> tuple[int, ...] | None:
    """Height and width of what comes out; None where it is no image any more."""
    shape = tuple(node.meta["tensor_meta"].shape)
    return shape[2:] if len(shape) == 4 else None


def _named(found: Traced, points: list[fx.Node], names: Sequence[str]) -> Iterator[fx.Node]:
    modules = dict(found.network.named_modules())
    at = {node: index for index, node in enumerate(found.graph.nodes)}
    ends: dict[fx.Node, str] = {}
    for name in names:
        if name not in modules:
            raise ModelError(f"blocks: the network has no module '{name}'")
        mine = [node for node in operations(found.graph) if _is_part(path_of(node), name)]
        if not mine:
            raise ModelError(f"blocks: '{name}' can't be looked into, or does nothing")
        end = next((node for node in points if at[node] >= at[mine[-1]]), None)
        # What finishes it may stand outside: the cut comes after that.
        outside = [node for node in operations(found.graph) if end is not None and at[mine[-1]] < at[node] <= at[end]]
        if end is None or not all(is_finish(node, modules) or passes(node, modules) for node in outside):
            raise ModelError(f"blocks: the network can't be cut behind '{name}'")
        if end in ends:
            same = "it is named twice" if ends[end] == name else f"so does one behind '{ends[end]}': name one of them"
            raise ModelError(f"blocks: a block ends behind '{name}', and {same}")
        ends[end] = name
    yield from sorted(ends, key=at.__getitem__)


def _is_part(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def _between(graph: fx.Graph, ends: Sequence[fx.Node]) -> list[Stretch]:
    stretches: list[Stretch] = [[]]
    for node in operations(graph):
        stretches[-1].append(node)
        if node in ends:
            stretches.append([])
    return [each for each in stretches if each]


def _merged(found: Traced, stretches: list[Stretch]) -> list[Stretch]:
    """Those without weights join the next one, at the end the one before; so do those that share weights."""
    merged: list[Stretch] = []
    pending: Stretch = []
    for stretch in stretches:
        pending = pending + stretch
        if _weights(found, pending):
            merged.append(pending)
            pending = []
    if pending and merged:
        merged[-1] = merged[-1] + pending
    seen: dict[int, int] = {}
    joined: list[Stretch] = []
    for stretch in merged:
        joined.append(stretch)
        shared = [seen[weight] for weight in _weights(found, stretch) if weight in seen]
        if shared and min(shared) < len(joined) - 1:
            joined[min(shared) :] = [[node for each in joined[min(shared) :] for node in each]]
        seen = {weight: index for index, each in enumerate(joined) for weight in _weights(found, each)}
    return joined


def _weights(found: Traced, stretch: Stretch) -> set[int]:
    """Kernels and matrices that a stretch uses, by identity."""
    used: set[int] = set()
    for node in stretch:
        if node.op == "call_module":
            tensors: list[object] = [*found.network.get_submodule(str(node.target)).parameters()]
        else:
            tensors = [_attribute(found.network, str(each.target)) for each in _fetched(node)]
        used |= {id(each) for each in tensors if isinstance(each, torch.Tensor) and each.ndim > 1}
    return used


def _fetched(node: fx.Node) -> list[fx.Node]:
    return [each for each in node.all_input_nodes if each.op == "get_attr"]


def _attribute(network: nn.Module, target: str) -> object:
    owner, _, name = target.rpartition(".")
    return getattr(network.get_submodule(owner), name)


def _blocks(found: Traced, stretches: list[Stretch]) -> Iterator[Block]:
    modules = dict(found.network.named_modules())
    first = next(node for node in found.graph.nodes if node.op == "placeholder" and node.users)
    source, names = first, _names(found, stretches)
    for name, stretch in zip(names, stretches, strict=True):
        begin = next((at for at, node in enumerate(stretch) if _weights(found, [node])), 0)
        # The lead ends where one tensor crosses.
        while begin and not _is_lead(stretch[:begin], stretch[begin:], source):
            begin -= 1
        lead, core = stretch[:begin], stretch[begin:]
        entry = lead[-1] if lead else source
        yield Block(
            name,
            _module(found.network, lead, source),
            _module(found.network, core, entry),
            activation_of(core[-1], modules),
            tuple(entry.meta["tensor_meta"].shape[1:]),
            tuple(core[-1].meta["tensor_meta"].shape[1:]),
            {path: why for path, why in found.whole.items() if path in {str(node.target) for node in stretch}},
            next((path for node in reversed(stretch) if (path := path_of(node))), ""),
        )
        source = core[-1]


def _is_lead(lead: Stretch, core: Stretch, source: fx.Node) -> bool:
    needed = {each for node in core for each in node.all_input_nodes if each.op != "get_attr"} - set(core)
    return needed == {lead[-1]} and lead[-1].meta.get("type") is torch.Tensor


def _module(network: nn.Module, stretch: Stretch, source: fx.Node) -> nn.Module:
    """Some operations as a module that shares the network's."""
    if not stretch:
        return nn.Identity()
    graph = fx.Graph()
    copies = {source: graph.placeholder("inputs")}
    for node in stretch:
        for each in _fetched(node):
            if each not in copies:
                copies[each] = graph.node_copy(each)
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[stretch[-1]])
    return fx.GraphModule(network, graph, "Block")


def _names(found: Traced, stretches: list[Stretch]) -> list[str]:
    """The outermost module that holds what has weights in a stretch and nothing of others; or its first one."""
    paths = [[_place(node) for node in stretch if _weights(found, [node])] for stretch in stretches]
    whole, names = units(found.network), []
    for own in paths:
        others = [path for each in paths if each is not own for path in each]
        name = _common(own)
        while (above := name.rpartition(".")[0]) and name not in whole and not _holds(above, others):
            name = above
        names.append(own[0] if not name or _holds(name, others) else name)
    return names


def _place(node: fx.Node) -> str:
    """The module that an operation with weights is, or the name of the weights that it takes."""
    return path_of(node) if node.op == "call_module" else str(_fetched(node)[0].target)


def _holds(name: str, paths: Sequence[str]) -> bool:
    return any(_is_part(path, name) for path in paths)


def _common(paths: Sequence[str]) -> str:
    parts = [path.split(".") for path in paths]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def _check_same(network: nn.Module, blocks: Sequence[Block], inputs: torch.Tensor) -> None:
    with evaluating(network):
        expected, got = network(inputs.clone()), inputs.clone()
        for block in blocks:
            entry = block.lead.eval()(got)
            version = entry._version
            got = block.core.eval()(entry)
            if entry._version != version:
                raise ModelError(
                    f"block '{block.name}' begins by writing into what goes in, which its replacements learn from, "
                    "too: make that operation not in-place, or name blocks that end elsewhere (blockwise.blocks)"
                )
    if expected.shape != got.shape or not torch.allclose(expected, got, rtol=1e-4, atol=1e-5):
        raise ModelError(f"{type(network).__name__}: its blocks in a row don't give what it gives; its forward decides")


def _one_block(found: Traced, points: list[fx.Node], ends: list[fx.Node], granularity: Cut) -> str:
    """Why there is nothing to cut, and where it could not be looked into."""
    layers = sum(bool(_weights(found, [node])) for node in operations(found.graph))
    if layers < 2:
        why = "it has one layer with weights" if layers else "it has no layer with weights"
    elif len(points) < 2:
        why = "everywhere inside more than one tensor is alive"
    elif len(ends) < 2:
        why = f"no {granularity} ends inside it; cut finer, by layer"
    else:
        why = "one of its parts has all weights, or they share them"
    whole = "; ".join(f"{name or 'the network itself'}: {why}" for name, why in found.whole.items())
    looked = f"; could not be looked into: {whole}" if whole else ""
    return f"{type(found.network).__name__} can't be cut: {why}{looked}"

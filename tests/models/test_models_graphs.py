"""Families of random graphs: what is drawn, what is built of it, and how wide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from stillhouse.foundation.errors import ModelError
from stillhouse.models.build import Interface, build
from stillhouse.models.graphs.graph import Graph, drawn
from stillhouse.models.graphs.member import member, split
from stillhouse.models.graphs.modules import GraphModule, Sum, WeightedSum, operation
from stillhouse.models.graphs.network import Cells
from stillhouse.models.graphs.widths import TOLERANCE, BetweenError, grown, polynomial, scaled, solved
from stillhouse.models.network import Network
from stillhouse.models.onnx import onnx_model, onnx_session
from stillhouse.recipe.architectures import ModelSection, Normalisation
from stillhouse.recipe.random_graph import LevelOptions, Operation, RandomGraphOptions

GREY = Normalisation(mean=(0.5,), std=(0.25,))
LEVELS = st.builds(
    LevelOptions,
    kind=st.sampled_from(["watts_strogatz", "erdos_renyi", "barabasi_albert"]),
    nodes=st.integers(1, 12),
    neighbours=st.integers(1, 8),
    probability=st.floats(0, 1),
)
PAPER = {
    "top": {"kind": "watts_strogatz", "nodes": 6, "neighbours": 4, "probability": 0.6},
    "middle": {"kind": "erdos_renyi", "nodes": 4, "probability": 0.5},
    "bottom": {"kind": "watts_strogatz", "nodes": 5, "neighbours": 2, "probability": 0.6},
}


def made(side_px: int = 8, channels: int = 1, classes: int = 10, **options: Any) -> Network:
    section = ModelSection(arch="random_graph", options=options)
    return build(section, Interface((channels, side_px, side_px), True, classes), GREY, 1, "student")


def params(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


class Scaled(nn.Module):
    """A node of a graph: a share of what comes in."""

    def __init__(self, share: nn.Parameter) -> None:
        super().__init__()
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.share


@given(LEVELS, st.integers(0, 2**62))
def test_every_node_lies_on_a_way_through(options: LevelOptions, seed: int) -> None:
    """Edges point upwards, so there is no cycle; what goes in comes out by each node, none of which is let go early."""
    graph = drawn(options, seed)
    assert graph.nodes == options.nodes and graph == drawn(options, seed)
    assert all(0 <= start < end < graph.nodes for start, end in graph.edges)
    assert len(set(graph.edges)) == len(graph.edges)
    shares = nn.ParameterList(torch.ones(1, 1, 1, 1) for _ in range(graph.nodes))
    inputs = torch.ones(1, 1, 1, 1, requires_grad=True)
    GraphModule(graph, [Scaled(each) for each in shares], "sum", 1)(inputs).sum().backward()
    assert all(each.grad is not None and each.grad.item() > 0 for each in (inputs, *shares))


def test_neighbours_mean_what_they_say() -> None:
    """A ring that is not rewired joins each node to its nearest; an added node has so many edges; all, where asked."""
    ring = drawn(LevelOptions(nodes=6, neighbours=2, probability=0.0), 1)
    assert set(ring.edges) == {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)}
    grown = drawn(LevelOptions(kind="barabasi_albert", nodes=8, neighbours=3), 1)
    assert len(grown.edges) == 3 * (8 - 3)
    full = drawn(LevelOptions(kind="erdos_renyi", nodes=5, probability=1.0), 1)
    assert len(full.edges) == 10
    assert len(drawn(LevelOptions(nodes=5, neighbours=9), 1).edges) == 10


@given(st.integers(1, 32), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_nodes_are_split_in_proportion(nodes: int, shares: list[int]) -> None:
    """Every stage has a node, whatever their number, and beyond that its share, to less than one."""
    nodes = max(nodes, len(shares))
    stages = split(nodes, shares)
    assert len(stages) == nodes and list(stages) == sorted(stages)
    free = nodes - len(shares)
    for stage, share in enumerate(shares):
        assert abs(stages.count(stage) - 1 - free * share / sum(shares)) < 1


def test_a_family_has_members() -> None:
    """The same number draws the same graphs, and others draw others: on every level, in every cell."""
    members = [member(RandomGraphOptions(**PAPER, seed=seed)) for seed in range(12)]
    assert members[3].digest == member(RandomGraphOptions(**PAPER, seed=3)).digest
    assert len({each.digest for each in members}) == 12
    assert len({each.top for each in members}) > 6
    assert len(set(members[0].middle)) > 1
    assert len({graph for several in members[0].bottom for graph in several}) > 3
    assert members[0].operations == 6 * 4 * 5


def test_other_graphs_are_refused() -> None:
    """A recipe that says which graphs a member has is not served with others; the right ones are built."""
    right = member(RandomGraphOptions(seed=4)).digest
    made(seed=4, graphs=right)
    with pytest.raises(ModelError, match=rf"its graphs are {right}, not 0123: another version of networkx"):
        made(seed=4, graphs="0123")


@settings(deadline=None, max_examples=40)
@given(st.integers(1_500, 300_000), st.integers(0, 100), st.sampled_from([1.0, 1.5, 2.0, 3.0]), st.integers(3, 6))
def test_a_network_has_the_parameters_it_was_asked_for(wanted: int, seed: int, growth: float, nodes: int) -> None:
    """What is built has as many as the budget, or up to 5 % less; else the error says what it could have."""
    options = {"top": {"nodes": nodes}, "params": wanted, "seed": seed, "growth": growth}
    try:
        found = params(made(**options))
    except ModelError as error:
        told = str(error)
        event("refused")
    else:
        told = ""
        assert (1 - TOLERANCE) * wanted <= found <= wanted
    assert not told or "is too few" in told or "none of its widths has about" in told


def test_a_budget_out_of_reach_names_what_is_in_reach() -> None:
    """The smallest network that there is; and where a channel more is too many, what there is below."""
    with pytest.raises(ModelError, match=r"100 is too few: with \(2, 4, 8\) channels it has (\d,\d+) already") as found:
        made(params=100)
    least = int(str(found.value).split("it has ")[1].split()[0].replace(",", ""))
    assert params(made(params=least)) == least
    with pytest.raises(
        BetweenError, match="with one more anywhere too many; 1,600 or somewhat more can be had"
    ) as between:
        solved(1_900, (1.0,), lambda widths: 400 * widths[0] ** 2 // 1)
    assert between.value.reached == 1_600


@given(st.integers(500, 10**7), st.integers(1, 4), st.floats(1, 4))
def test_no_channel_more_fits(wanted: int, stages: int, growth: float) -> None:
    """Widths are the most within the budget, stage by stage."""

    def count(widths: tuple[int, ...]) -> int:
        return sum(3 * width**2 + 10 * width for width in widths)

    try:
        found = solved(wanted, grown(stages, growth), count)
    except ModelError:
        return
    assert count(found) <= wanted
    for stage in range(stages):
        assert count(tuple(width + (at == stage) for at, width in enumerate(found))) > wanted
    assert all(one <= other for one, other in zip(scaled(2.0, grown(stages, growth)), found, strict=True))


@pytest.mark.parametrize("unit", [2, 8, 16, 64])
def test_a_network_that_rounds_its_widths_is_counted(unit: int) -> None:
    """Near its smallest widths its count does not change, far from them it does."""

    def count(widths: tuple[int, ...]) -> int:
        return sum(9 * (-(-width // unit) * unit) ** 2 for width in widths)

    for stages in (1, 3):
        told = polynomial(count, stages, (7, 157))
        for widths in ((100, 200, 300), (64, 64, 128)):
            assert told(widths[:stages]) == count(widths[:stages])


def test_widths_and_stages_are_what_they_say() -> None:
    """Channels and resolution of each stage; either widths or params."""
    network = made(16, widths=[5, 7, 11], top={"nodes": 4}, depth=[1, 2, 1])
    seen: list[tuple[int, ...]] = []
    cells = network.body.get_submodule("cells")
    assert isinstance(cells, nn.Sequential) and isinstance(cells[0], Cells)
    for cell in cells[0].cells:
        cell.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    network(torch.zeros(1, 1, 16, 16))
    assert seen == [(5, 16, 16), (7, 8, 8), (7, 8, 8), (11, 4, 4)]
    for wrong, words in (
        ({"widths": [4], "params": 900}, "either params"),
        ({"widths": [4, 8]}, "widths has 2 stages, depth 3"),
        ({"top": {"nodes": 2}}, "of random_graph: depth has 3 stages, but top only 2 nodes"),
        ({"top": {"node": 2}}, "'top.node': did you mean 'nodes'"),
    ):
        with pytest.raises(ValidationError, match=words):
            ModelSection(arch="random_graph", options=wrong)


@pytest.mark.parametrize("operation", ["conv", "separable", "inverted"])
@pytest.mark.parametrize("merge", ["weighted", "sum", "concat"])
@pytest.mark.parametrize("kind", ["watts_strogatz", "erdos_renyi", "barabasi_albert"])
def test_every_kind_of_member_learns(operation: str, merge: str, kind: str) -> None:
    """Whatever it is made of, every weight has a gradient, and evaluation draws no random number."""
    options = {"top": {"kind": kind, "nodes": 4}, "middle": {"kind": kind, "nodes": 2}, "kernel": 5}
    network = made(12, 3, **options, operation=operation, merge=merge, params=60_000)
    images = torch.randint(0, 256, (4, 3, 12, 12), dtype=torch.uint8)
    network(images).square().sum().backward()
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in network.parameters())
    network.eval()
    assert torch.equal(network(images), network(images))


def test_a_graph_is_computed_as_it_is_drawn() -> None:
    """Each node works on the join of what leads to it, and what leads nowhere else is joined at the end."""
    graph = Graph(4, ((0, 2), (1, 2), (0, 3)))
    seen: dict[int, Tensor] = {}

    class Add(nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self, inputs: Tensor) -> Tensor:
            seen[self.number] = inputs
            return inputs + 10.0**self.number

    module = GraphModule(graph, [Add(number) for number in range(4)], "sum", 1)
    inputs = torch.full((1, 1, 1, 1), 2.0)
    left = module(inputs)
    root = 2**0.5
    assert seen[0].item() == seen[1].item() == 2.0
    assert seen[2].item() == pytest.approx((3.0 + 12.0) / root) and seen[3].item() == 3.0
    assert left.item() == pytest.approx(((3.0 + 12.0) / root + 100.0 + 3.0 + 1000.0) / root)


def test_a_weighted_sum_and_a_sum() -> None:
    """Weights go through a sigmoid; a sum of independent inputs has the deviation of one."""
    join = WeightedSum(2)
    ones = torch.ones(1, 1, 1, 1)
    assert join([ones, 3 * ones]).item() == 2.0
    with torch.no_grad():
        join.weight[1] = 100.0
    assert join([ones, 3 * ones]).item() == 3.5
    many = Sum()([torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(each)) for each in range(9)])
    assert many.std().item() == pytest.approx(1.0, abs=0.05)


def test_large_images_are_made_small_first() -> None:
    """The stem of a network for photographs halves until fewer than 64 pixels are left."""
    network = made(128, 3, widths=[4, 8, 16])
    stem = network.body.get_submodule("stem")
    assert stem(torch.zeros(1, 3, 128, 128)).shape == (1, 4, 32, 32)
    with pytest.raises(ModelError, match="random_graph with 5 stages"):
        made(8, top={"nodes": 6}, depth=[1] * 5)


@pytest.mark.slow
def test_a_member_is_exported() -> None:
    """ONNX Runtime answers what torch answers, for any number of images."""
    pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    network = made(16, 3, **PAPER, params=80_000).eval()
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    session = onnx_session(onnx_model(network, images[:2], "student", any_rows=True), 1)
    (answers,) = session.run(None, {"input": images.numpy()})
    assert torch.allclose(network(images), torch.from_numpy(answers), atol=1e-4)


@pytest.mark.slow
def test_a_member_compiles() -> None:
    """Into one graph, with the same answers."""
    network = made(16, 3, params=20_000).eval()
    images = torch.rand(2, 3, 16, 16)
    compiled = torch.compile(network, fullgraph=True)
    assert torch.allclose(network(images), compiled(images), atol=1e-4)


@pytest.mark.parametrize(("kind", "linear"), [("conv", False), ("separable", False), ("inverted", True)])
def test_an_inverted_bottleneck_takes_what_is_negative(kind: Operation, linear: bool) -> None:
    """What is narrow is not cut off (arXiv 1801.04381); other operations begin with a ReLU."""
    torch.manual_seed(0)
    module = operation(RandomGraphOptions(operation=kind), 3).eval()
    below = -torch.rand(1, 3, 4, 4)
    assert torch.equal(module(below), module(2 * below)) != linear

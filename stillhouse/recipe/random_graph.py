"""A family of networks: the parameters of a generator of random graphs, three levels of them (arXiv 2004.01395)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from stillhouse.recipe.section import NonNegativeInt, PositiveInt, Section

GraphKind = Literal["watts_strogatz", "erdos_renyi", "barabasi_albert"]
Operation = Literal["conv", "separable", "inverted"]
MergeKind = Literal["weighted", "sum", "concat"]

Stages = Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=6)]


class LevelOptions(Section):
    """How the graphs of one level are drawn. Edges point from the earlier node to the later."""

    kind: GraphKind = "watts_strogatz"
    nodes: Annotated[int, Field(ge=1, le=32)] = 4
    neighbours: PositiveInt = Field(
        2,
        description="watts_strogatz: of each node in the ring, in pairs (3 are 2); barabasi_albert: of each node that "
        "is added; no more than there are others",
    )
    probability: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5, description="watts_strogatz: of rewiring an edge; erdos_renyi: of an edge"
    )


_LEVELS: Final = {
    "top": LevelOptions(kind="watts_strogatz", nodes=3),
    "middle": LevelOptions(kind="erdos_renyi", nodes=1),
    "bottom": LevelOptions(kind="watts_strogatz", nodes=3),
}


class RandomGraphOptions(Section):
    """Cells, in each of them graphs, in each of those graphs of operations; ``seed`` says which member of the family.

    The nodes of ``top`` are split over stages, between which the resolution is halved.
    """

    top: LevelOptions = Field(_LEVELS["top"], description="cells")
    middle: LevelOptions = Field(_LEVELS["middle"], description="in each node of top")
    bottom: LevelOptions = Field(_LEVELS["bottom"], description="in each node of middle; its nodes are operations")
    seed: NonNegativeInt = Field(0, description="of the graphs: which member")
    operation: Operation = "conv"
    kernel: Literal[3, 5] = 3
    merge: MergeKind = Field("weighted", description="how a node joins its inputs: a learned weight for each, or none")
    depth: Stages = Field((1, 1, 1), description="nodes of top in each stage, in proportion")
    growth: PositiveFloat = Field(2.0, description="channels of a stage over those of the stage before")
    params: PositiveInt | None = Field(
        None, description="parameters of the whole network: channels are found so that it has as many, or a little less"
    )
    widths: Stages | None = Field(
        None, description="channels of each stage; instead of params. With neither the first stage has 16"
    )
    graphs: str | None = Field(None, description="digest of the graphs: others are refused")

    @model_validator(mode="before")
    @classmethod
    def _has_all_levels(cls, given: Any) -> Any:
        """What a level does not say is that level's own default."""
        if not isinstance(given, Mapping):
            return given
        partial = {name: each for name, each in given.items() if name in _LEVELS and isinstance(each, Mapping)}
        return {**given, **{name: {**_LEVELS[name].model_dump(), **each} for name, each in partial.items()}}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.params is not None and self.widths is not None:
            raise ValueError("give either params (channels are found for it) or widths (channels of each stage)")
        if self.widths is not None and len(self.widths) != len(self.depth):
            raise ValueError(f"widths has {len(self.widths)} stages, depth {len(self.depth)}: give one of each a stage")
        if self.top.nodes < len(self.depth):
            raise ValueError(
                f"depth has {len(self.depth)} stages, but top only {self.top.nodes} nodes: one each at least"
            )
        return self

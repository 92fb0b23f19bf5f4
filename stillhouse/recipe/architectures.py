"""Which model: one of the zoo with its options, a timm model, or your own function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, ValidationError, field_validator, model_validator

from stillhouse.foundation.errors import nearest
from stillhouse.recipe.random_graph import RandomGraphOptions
from stillhouse.recipe.section import InputPath, PositiveInt, Section, function_reference

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=6)]


class StagesOptions(Section):
    """Stages, between which the resolution is halved; the width doubles from stage to stage, unless ``widths`` says
    each.
    """

    width: PositiveInt = 16
    blocks: Widths = (1, 1, 1)
    widths: Widths | None = Field(None, description="channels of each stage, instead of width")

    @model_validator(mode="after")
    def _has_a_width_for_each(self) -> Self:
        if self.widths is not None and len(self.widths) != len(self.blocks):
            stages = f"widths has {len(self.widths)} stages, blocks {len(self.blocks)}"
            raise ValueError(f"{stages}: give one of each a stage")
        return self

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each stage."""
        return self.widths or tuple(self.width * 2**stage for stage in range(len(self.blocks)))


class ResNetOptions(StagesOptions):
    """Basic blocks (arXiv 1512.03385): ``blocks`` in each stage."""


class VGGOptions(StagesOptions):
    """3x3 convolutions with batch norm (arXiv 1409.1556), ``blocks`` in each stage, a pooling between."""

    blocks: Widths = (2, 2, 2)


class MobileNetOptions(StagesOptions):
    """Inverted bottlenecks with depthwise convolutions (arXiv 1801.04381)."""

    blocks: Widths = (1, 2, 2)
    expansion: PositiveInt = 4


class MLPOptions(Section):
    """Fully connected layers on the flattened input."""

    hidden: tuple[PositiveInt, ...] = (64,)


ZOO_OPTIONS: dict[str, type[Section]] = {
    "resnet": ResNetOptions,
    "vgg": VGGOptions,
    "mobilenet": MobileNetOptions,
    "mlp": MLPOptions,
    "random_graph": RandomGraphOptions,
}


Granularity = Literal["layer", "block", "stage"]
ModuleName = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""As torch names it; YAML reads the names of an ``nn.Sequential``'s children as numbers."""

Cut = Granularity | Annotated[tuple[ModuleName, ...], Field(min_length=1)]
"""Where a network is cut: how fine, or the names of modules that end a block each."""


class Normalisation(Section):
    """What a model was trained to see: (value / 255 - mean) / std for images, (value - mean) / std otherwise."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


BLOCKWISE: Final = "blockwise"


class ModelSection(Section):
    """A model and how it wants its input."""

    arch: str = Field(
        description="resnet | vgg | mobilenet | mlp | random_graph | blockwise | timm:NAME | file.py:function"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the architecture")
    weights: InputPath | None = Field(None, description=".safetensors, or a state dict saved by torch.save")
    normalise: Literal["auto"] | Normalisation = Field(
        "auto", description="auto: what timm or the weights say, else the mean and deviation of the training split"
    )
    size_px: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="height and width the model wants; default: those of the view"
    )
    channels: Literal[1, 3] | None = Field(None, description="channels the model wants; default: those of the data")

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        if arch in ZOO_OPTIONS or arch in ("live", BLOCKWISE) or (arch.startswith("timm:") and len(arch) > 5):
            return arch
        if ".py:" in arch:
            return function_reference(arch)
        raise ValueError(
            f"unknown architecture '{arch}': {nearest(arch, ZOO_OPTIONS)} (also timm:NAME and file.py:function)"
        )

    @field_validator("weights")
    @classmethod
    def _is_file(cls, weights: str | None) -> str | None:
        if weights is not None and not Path(weights).is_file():
            raise ValueError(f"{weights} is a folder: weights are one file")
        return weights

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        """Complete and check the options of a zoo model, so that the run's recipe says all of them."""
        known = BlockwiseOptions if self.arch == BLOCKWISE else ZOO_OPTIONS.get(self.arch)
        if known is not None:
            try:
                complete = known(**self.options)
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join(str(part) for part in first["loc"])
                hint = first["msg"]
                if first["type"] == "extra_forbidden":
                    hint = nearest(str(first["loc"][-1]), _fields(known, first["loc"][:-1]))
                where = f"'{key}': " if key else ""
                raise ValueError(f"options of {self.arch}: {where}{hint.removeprefix('Value error, ')}") from error
            self.options.update(complete.model_dump(mode="json"))
        return self

    def without_weights(self) -> ModelSection:
        """The same network, whose weights come from elsewhere: no file of them is looked for, and nothing fetched."""
        options = dict(self.options)
        if options.get("pretrained"):
            options["pretrained"] = False  # a function of one's own may want to be told
        if self.arch.startswith("timm:"):
            options.pop("checkpoint_path", None)
        if self.arch == BLOCKWISE and isinstance(options["of"], dict):
            options["of"] = ModelSection.model_validate(options["of"]).without_weights().model_dump(mode="json")
        return self.model_copy(update={"weights": None, "options": options})


def _fields(section: type[Section], path: Sequence[int | str]) -> Iterable[str]:
    """The keys that a section in a section knows."""
    for part in path:
        inner = section.model_fields[str(part)].annotation
        if not (isinstance(inner, type) and issubclass(inner, Section)):
            return ()
        section = inner
    return section.model_fields


class BlockwiseOptions(Section):
    """A network some of whose blocks are replaced. A run with a section ``blockwise`` settles all of it."""

    of: ModelSection | Literal["auto"] = Field("auto", description="the network; auto: the teacher")
    blocks: Cut | Literal["auto"] = Field("auto", description="where it is cut")
    mix: tuple[str, ...] | Literal["auto"] = Field("auto", description="what stands for each block, front to back")
    folded: bool = Field(False, description="whether norms are folded into the convolutions before them")

    @property
    def settled(self) -> bool:
        """Whether all is said."""
        return "auto" not in (self.of, self.blocks, self.mix)

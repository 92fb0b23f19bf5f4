"""Models of the library timm (``timm:NAME``), an extra: ``pip install 'stillhouse[vision]'``.

timm needs torchvision, whose wheels for CUDA do not load their C++ part beside a PyTorch for the CPU only:
the import dies on the first operator it describes. Two declared operators are all that is missing; they
are never called by a classifier.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from stillhouse.foundation.errors import ModelError, nearest
from stillhouse.recipe.architectures import Normalisation

_BY_STAGE: Final = ("channels", "dims", "embed_dims")
_BY_ONE: Final = "embed_dim"
_UNIT: Final = 4


def build_timm(name: str, options: dict[str, Any], channels: int, classes: int) -> nn.Module:
    """A timm model, [B, channels, H, W] -> [B, classes]; ``options`` go to ``timm.create_model``.

    Raises:
        ModelError: timm is not installed, knows no such model, or refuses the options.
    """
    timm = _import_timm()
    if not timm.is_model(name):
        names = timm.list_models()
        close = difflib.get_close_matches(name, names, n=1)
        hint = nearest(name, close) if close else "timm.list_models('*net*') finds names by a pattern"
        raise ModelError(f"timm has no model '{name}': {hint}")
    try:
        model = timm.create_model(name, **{"num_classes": classes, "in_chans": channels, **options})
    except Exception as error:  # timm hands options on to any of a thousand constructors
        raise ModelError(
            f"timm:{name} could not be built: {type(error).__name__}: {error}: mend its options"
        ) from error
    assert isinstance(model, nn.Module)
    return model


@dataclass(frozen=True)
class TimmWidths:
    """How a family of timm's is made wider or narrower.

    Attributes:
        option: of ``timm.create_model``.
        shape: relative channels of each stage.
        unit: channels are multiples of it.
    """

    option: str
    shape: tuple[float, ...]
    unit: int

    def wide(self, units: Sequence[int]) -> dict[str, Any]:
        """The option with so many units in each stage."""
        channels = [self.unit * each for each in units]
        return {self.option: channels if self.option in _BY_STAGE else channels[0]}


def timm_widths(name: str, options: Mapping[str, Any]) -> TimmWidths | None:
    """Whether and how a model's width may be chosen; None where it takes none, or the options say it.

    Networks whose constructor takes ``channels``, ``dims`` or ``embed_dims`` of each stage (ResNets, ConvNeXts,
    EdgeNeXts, FastViTs, ...) or one ``embed_dim`` (ViTs, Swins).

    Raises:
        ModelError: as :func:`build_timm`.
    """
    if any(each in options for each in (*_BY_STAGE, _BY_ONE)):
        return None
    with torch.device("meta"):
        model = build_timm(name, dict(options), 3, 2)
    takes = inspect.signature(type(model).__init__).parameters
    stages = [each["num_chs"] for each in getattr(model, "feature_info", None) or []]
    for option in _BY_STAGE:
        usual = takes[option].default if option in takes else None
        if isinstance(usual, tuple | list) and 1 < len(usual) <= len(stages):
            own = stages[-len(usual) :]
            return TimmWidths(option, tuple(each / own[0] for each in own), _UNIT)
    if _BY_ONE in takes and isinstance(takes[_BY_ONE].default, int):
        heads = options.get("num_heads", _heads(model))
        return TimmWidths(_BY_ONE, (1.0,), heads[0] if isinstance(heads, tuple | list) else heads)
    return None


def _heads(model: nn.Module) -> int:
    """Of the first attention; one where there is none."""
    found = (getattr(each, "num_heads", None) for each in model.modules())
    return next((each for each in found if isinstance(each, int)), 1)


def timm_normalisation(model: nn.Module) -> Normalisation | None:
    """What timm says that the model was trained to see; ``None`` where it says nothing."""
    config = getattr(model, "pretrained_cfg", None) or {}
    if not config.get("mean") or not config.get("std"):
        return None
    return Normalisation(mean=tuple(config["mean"]), std=tuple(config["std"]))


def _import_timm() -> Any:
    try:
        import_torchvision()
        return importlib.import_module("timm")
    except ImportError as error:
        raise ModelError(f"timm models need the extra 'vision': pip install 'stillhouse[vision]' ({error})") from error


def import_torchvision() -> None:
    """Import torchvision, also where its build does not fit torch's: declares the two operators it then misses."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(
                    f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
        importlib.import_module("torchvision")

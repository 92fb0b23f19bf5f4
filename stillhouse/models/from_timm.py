"""Models of the library timm (``timm:NAME``), an extra: ``pip install 'stillhouse[vision]'``.

timm needs torchvision, whose wheels for CUDA do not load their C++ part beside a PyTorch for the CPU only:
the import dies on the first operator it describes. Two declared operators are all that is missing; they
are never called by a classifier.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import torch
from torch import nn

from stillhouse.foundation.errors import ModelError, nearest
from stillhouse.recipe.architectures import Normalisation


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

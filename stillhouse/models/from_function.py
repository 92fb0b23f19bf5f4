"""Models made by a person's own function (``file.py:function``)."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from stillhouse.foundation.errors import ModelError, RecipeError
from stillhouse.foundation.functions import load_function, told
from stillhouse.models.from_timm import import_torchvision


def build_from_function(reference: str, options: dict[str, Any], offers: dict[str, Any]) -> nn.Module:
    """Call the function with ``options`` and those of ``offers`` that it has parameters for; options win.

    Args:
        reference: ``/absolute/path.py:function``; a class does as well.

    Raises:
        ModelError: the file can't be loaded, the function raised, or the answer is not an ``nn.Module``.
    """
    # A person's code may import torchvision, and would die where its compiled part does not load.
    with contextlib.suppress(ImportError):
        import_torchvision()
    try:
        function = load_function(reference)
    except RecipeError as error:
        raise ModelError(str(error)) from error
    try:
        model = function(**{**_accepted(function, offers), **options})
    except (Exception, SystemExit) as error:  # anything a person's code may raise
        raise ModelError(f"{reference} raised {told(error, reference.rpartition(':')[0])}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{reference} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def defaults_of(reference: str) -> dict[str, Any]:
    """The plain values that the function's options have where nobody gives them.

    Raises:
        ModelError: the file can't be loaded.
    """
    try:
        parameters = inspect.signature(load_function(reference)).parameters.values()
    except RecipeError as error:
        raise ModelError(str(error)) from error
    return {each.name: each.default for each in parameters if isinstance(each.default, bool | int | float | str)}


def _accepted(function: Callable[..., Any], offers: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return offers
    keywords = {each.name for each in parameters if each.kind is not inspect.Parameter.POSITIONAL_ONLY}
    return {name: value for name, value in offers.items() if name in keywords}

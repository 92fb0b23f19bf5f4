"""The user's own code, run only where a recipe names it: ``file.py:function``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillhouse.foundation.errors import RecipeError
from stillhouse.foundation.files import sha256


def load_function(reference: str) -> Callable[..., Any]:
    """Load a file as a module of its own and return one function of it.

    The file is run at every call, under a name that shadows no other module. Imports of its neighbours work only if
    their folder is on ``sys.path``.

    Args:
        reference: ``file.py:function``; the recipe has checked that both exist.

    Raises:
        RecipeError: the file raised while loading; the message holds the cause.
    """
    file, _, function = reference.rpartition(":")
    name = f"stillhouse_user_{Path(file).stem}_{sha256(file.encode())[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{file} can't be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RecipeError(f"loading {file} raised {type(error).__name__}: {error}") from error
    found: Callable[..., Any] = getattr(module, function)
    return found

"""The user's own code, run only where a recipe names it: ``file.py:function``."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillhouse.foundation.errors import RecipeError
from stillhouse.foundation.files import sha256


def load_function(reference: str) -> Callable[..., Any]:
    """Load a file as a module of its own and return one function of it.

    The file is run at every call, under a name that shadows no other module. Imports of its neighbours work only if
    their folder is on ``sys.path``; workers that a run starts on this machine have that of the run.

    Args:
        reference: ``file.py:function``; the recipe has checked that both exist.

    Raises:
        RecipeError: the file raised (or exited) while loading, or did not define the function after all.
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
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RecipeError(f"loading {file} raised {told(error, file)}") from error
    found: Callable[..., Any] | None = getattr(module, function, None)
    if found is None:
        raise RecipeError(f"{file} was loaded and has no '{function}'")
    return found


def told(error: BaseException, file: str) -> str:
    """An error raised by the user's code: its kind, its words, and the last line of the user's file that it passed."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return f"{type(error).__name__}: {error}" + (f" (line {lines[-1]})" if lines else "")

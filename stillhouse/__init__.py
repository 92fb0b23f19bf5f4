"""Stillhouse distils a large trained network into a small, fast one.

Five calls, imported when first used, so that ``import stillhouse`` stays fast:

    stillhouse.run("recipe.yaml")                 what the command line does
    stillhouse.distill(teacher, student, data)    on your own modules and datasets
    stillhouse.blockwise(teacher, data, budget)   a student made of the teacher's own blocks
    stillhouse.search(teacher, data, budget)      a student that is searched for
    stillhouse.load_student("runs/demo")          the student, ready to use

What goes wrong is a ``stillhouse.StillhouseError``. Warnings go to the logger ``stillhouse``, and whatever happens, at
its level INFO: ``logging.basicConfig(level=logging.INFO)`` shows it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillhouse.export.weights import load_student
    from stillhouse.foundation.errors import StillhouseError
    from stillhouse.runner.api import blockwise, distill, run, search

__all__ = ["StillhouseError", "blockwise", "distill", "load_student", "run", "search"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name in ("blockwise", "distill", "run", "search"):
        from stillhouse.runner import api

        return getattr(api, name)
    if name == "load_student":
        from stillhouse.export.weights import load_student

        return load_student
    if name == "StillhouseError":
        from stillhouse.foundation.errors import StillhouseError

        return StillhouseError
    raise AttributeError(f"module 'stillhouse' has no attribute '{name}'")

"""Stillhouse distils a large trained network into a small, fast one.

Three calls, imported when first used, so that ``import stillhouse`` stays fast:

    stillhouse.run("recipe.yaml")                 what the command line does
    stillhouse.distill(teacher, student, data)    on your own modules and datasets
    stillhouse.load_student("runs/demo")          the student, ready to use
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillhouse.export.weights import load_student
    from stillhouse.runner.api import distill, run

__all__ = ["distill", "load_student", "run"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name in ("distill", "run"):
        from stillhouse.runner import api

        return getattr(api, name)
    if name == "load_student":
        from stillhouse.export.weights import load_student

        return load_student
    raise AttributeError(f"module 'stillhouse' has no attribute '{name}'")

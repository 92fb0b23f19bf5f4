"""The base of every section, and the field types they share."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class Section(BaseModel):
    """A frozen part of a recipe that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def _expand(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise ValueError(
                f"the environment variable {match[1]} is not set; write ${{{match[1]}:-default}} to allow for that"
            )
        return found

    return _VARIABLE.sub(value, text)


def _input_path(text: str) -> str:
    path = Path(_expand(text)).expanduser().absolute()
    if not path.exists():
        raise ValueError(f"{path} does not exist (paths are relative to the current folder)")
    return os.path.normpath(path)


def function_reference(text: str) -> str:
    """Check ``file.py:function`` without running the file; returns it with an absolute path.

    Raises:
        ValueError: the file is missing, is not Python, or defines no such function at its top.
    """
    file, _, function = text.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise ValueError(f"'{text}' is not of the form file.py:function")
    path = Path(_input_path(file))
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
    defined = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    if function not in defined:
        names = ", ".join(sorted(defined)) or "nothing"
        raise ValueError(f"{path} defines no function '{function}' (it defines: {names})")
    return f"{path}:{function}"


InputPath = Annotated[str, AfterValidator(_input_path), Field(description="path; ${VARIABLE:-default} is expanded")]
FunctionReference = Annotated[str, AfterValidator(function_reference), Field(description="file.py:function")]

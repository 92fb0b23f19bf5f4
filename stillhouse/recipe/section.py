"""The base of every section, and the field types they share."""

from __future__ import annotations

import ast
import operator
import os
import re
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo

_DEVICE = r"^(auto|cpu|cuda(:\d+)?|mps)$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class Section(BaseModel):
    """A frozen part of a recipe that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, values: Any) -> Any:
        """YAML reads ``yes`` and ``on`` as true, which would count as 1."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields and not _takes_truth(cls.model_fields[name]):
                raise ValueError(f"{name}: true or false makes no sense here; quote it if it is meant as a word")
        return values


def _takes_truth(field: FieldInfo) -> bool:
    return bool in (field.annotation, *get_args(field.annotation))


def _expand(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise ValueError(
                f"the environment variable {match[1]} is not set; write ${{{match[1]}:-default}} to allow for that"
            )
        return found

    return _VARIABLE.sub(value, text)


def _absolute_path(text: str) -> str:
    try:
        return os.path.normpath(Path(_expand(text)).expanduser().absolute())
    except (OSError, RuntimeError) as error:
        raise ValueError(f"'{text}' can't be a path: {getattr(error, 'strerror', None) or error}") from error


def _input_path(text: str) -> str:
    path = _absolute_path(text)
    try:
        there = Path(path).exists()
    except OSError as error:
        raise ValueError(f"'{text}' can't be looked at: {error.strerror or error}") from error
    if not there:
        raise ValueError(f"{path} does not exist (paths are relative to the current folder)")
    return path


def _output_path(text: str) -> str:
    try:
        return str(Path(_expand(text)).expanduser())
    except RuntimeError as error:  # nobody of that name
        raise ValueError(f"'{text}' can't be a path: {error}") from error


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
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}") from error
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
    defined = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    if function not in defined:
        names = ", ".join(sorted(defined)) or "nothing"
        raise ValueError(f"{path} defines no function '{function}' (it defines: {names})")
    return f"{path}:{function}"


def _device(text: str) -> str:
    if not re.fullmatch(_DEVICE, text):
        raise ValueError(f"must be auto, cpu, cuda, cuda:NUMBER or mps, not '{text}'")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise ValueError(f"must begin with a letter or digit, then letters, digits, '.', '_' and '-', not '{text}'")
    return text


def _plain_int(value: Any) -> Any:
    """Numpy's integers, which a Python caller may hand over, are integers."""
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


# Whole numbers are strict: '10' and 3.0 are slips. Real ones are not: PyYAML takes 1e-3 for a word.
WholeNumber = Annotated[int, Strict(), BeforeValidator(_plain_int)]
PositiveInt = Annotated[WholeNumber, Field(gt=0)]
NonNegativeInt = Annotated[WholeNumber, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Device = Annotated[str, AfterValidator(_device), WithJsonSchema({"type": "string", "pattern": _DEVICE})]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": _NAME})]
OutputPath = Annotated[str, AfterValidator(_output_path)]
AbsolutePath = Annotated[str, AfterValidator(_absolute_path)]
InputPath = Annotated[str, AfterValidator(_input_path), Field(description="path; ${VARIABLE:-default} is expanded")]
FunctionReference = Annotated[str, AfterValidator(function_reference), Field(description="file.py:function")]

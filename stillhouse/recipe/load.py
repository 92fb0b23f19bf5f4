"""From YAML to a :class:`Recipe`: every complaint names file, line, key and the mend.

Plain YAML only: object tags are refused, a key written twice is an error. ``--set a.b=c`` replaces one
value, parsed as YAML. Errors of one recipe are told all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from stillhouse.foundation.errors import RecipeError, nearest
from stillhouse.recipe.engines import AUTO
from stillhouse.recipe.recipe import Recipe, as_dict
from stillhouse.recipe.search import FORMS

_SHOULD = "Input should be "
_WORDS = re.compile(r"\w+(?:\.\w+)*")
_PARSED = re.compile(", unable to parse string as an? (integer|number)")
_SPACE = "search.space."
_SET = -1  # stands for the line of a value that --set gave
Location = tuple[str | int, ...]

_NO_MAPPING = ("model_type", "model_attributes_type", "dict_type")
_WORDED = {
    "tuple_type": "must be a list",
    "float_parsing": "must be a number",
    "too_short": "must hold at least {min_length} values, not {actual_length}",
    "too_long": "must hold at most {max_length} values, not {actual_length}",
}
_NODES_MAX = 20_000
_BREAKS = set("\x85\u2028\u2029\ufeff")
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}


def load(path: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file.
        overrides: ``a.b=c`` each, applied in order.

    Raises:
        RecipeError: file missing, broken YAML, unknown key, wrong type, impossible combination.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: there is no such recipe") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} can't be read: {error}") from error
    return parse(text, overrides, name=str(path))


def parse(text: str, overrides: Iterable[str] = (), name: str = "recipe") -> Recipe:
    """Like :func:`load`, from the text itself; ``name`` stands for the file in messages."""
    lines: dict[Location, int] = {}
    values = _read_yaml(text, lines, name)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise RecipeError(f"{name}:1: a recipe is a mapping of sections, not {type(values).__name__}")
    for override in overrides:
        _override(values, override, lines)
    return validate(values, name, lines)


def validate(values: dict[str, Any], name: str = "recipe", lines: dict[Location, int] | None = None) -> Recipe:
    """Check plain values against the recipe's sections."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        telling = [each for each in error.errors() if not _told_by_another(each, error.errors())]
        told = _joined(telling or error.errors(), values)
        messages = [_explain(each, values, name, lines or {}) for each in told]
        raise RecipeError("\n".join(dict.fromkeys(messages))) from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, complete; ``parse(dump(r)) == r``."""
    text = yaml.safe_dump(as_dict(recipe), sort_keys=False, allow_unicode=True, width=110)
    if _BREAKS.isdisjoint(text):
        return text
    # PyYAML writes these unescaped and reads them back as line breaks.
    return yaml.safe_dump(as_dict(recipe), sort_keys=False, allow_unicode=False, width=110)


def differences(before: Any, after: Any, at: str = "") -> list[str]:
    """What differs between two plain values, as ``key: old -> new`` lines."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in dict.fromkeys([*before, *after])
            for line in differences(before.get(key), after.get(key), f"{at}.{key}" if at else str(key))
        ]
    return [] if before == after else [f"{at}: {before} -> {after}"]


def _read_yaml(text: str, lines: dict[Location, int], name: str) -> Any:
    """A YAML text as plain values; ``lines`` takes the line of each."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return _plain(node, (), lines, name) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RecipeError(f"{name}:{mark.line + 1 if mark else '?'}: broken YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: broken YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise RecipeError(f"{name}: nested too deeply, or an alias that contains itself") from error


def _plain(node: yaml.Node, at: Location, lines: dict[Location, int], name: str) -> Any:
    """Nodes to plain values, noting the line of each."""
    if len(lines) >= _NODES_MAX:  # aliases of aliases can make gigabytes of a few lines
        raise RecipeError(f"{name}: more than {_NODES_MAX:,} values: no recipe is as large as that")
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        _refuse_tag(node, "tag:yaml.org,2002:map", name)
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _plain(key_node, (*at, "?"), lines, name)
            del lines[(*at, "?")]
            if not isinstance(key, str | int | float | bool):
                raise RecipeError(f"{name}:{key_node.start_mark.line + 1}: a key must be a plain word")
            key = str(key)
            if key in values:
                raise RecipeError(f"{name}:{key_node.start_mark.line + 1}: '{key}' is written twice")
            values[key] = _plain(value_node, (*at, key), lines, name)
            lines[(*at, key)] = key_node.start_mark.line + 1
        return values
    if isinstance(node, yaml.SequenceNode):
        _refuse_tag(node, "tag:yaml.org,2002:seq", name)
        return [_plain(child, (*at, index), lines, name) for index, child in enumerate(node.value)]
    if node.tag == "tag:yaml.org,2002:timestamp":  # a date as it is written, e.g. for a name
        return node.value
    if node.tag not in _SCALARS:
        _refuse_tag(node, "", name)
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (ValueError, KeyError) as error:
        raise RecipeError(f"{name}:{lines[at]}: '{node.value[:40]}' is no {node.tag.rpartition(':')[2]}") from error


def _refuse_tag(node: yaml.Node, plain: str, name: str) -> None:
    if node.tag != plain:
        raise RecipeError(
            f"{name}:{node.start_mark.line + 1}: the tag '{node.tag}' is refused: "
            "a recipe holds plain values only, no objects, sets or '<<' merges"
        )


def _override(values: dict[str, Any], override: str, lines: dict[Location, int]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: write it as section.key=value")
    section: Any = values
    at: Location = ()
    *above, last = _parts(key.strip(), values)
    for part in above:
        at = (*at, _key(section, part, override))
        if _child(section, at[-1]) is None:
            section[at[-1]] = {}
            lines[at] = _SET
        if section[at[-1]] == AUTO:  # of one word for all keys, the others stay
            section[at[-1]] = dict.fromkeys(_fields_at(Recipe, at, values), AUTO) or AUTO
        section = section[at[-1]]
        if not isinstance(section, dict | list):
            raise RecipeError(f"--set {override}: '{part}' is a value, not a section")
    at = (*at, _key(section, last, override))
    section[at[-1]] = _read_yaml(text, {}, f"--set {override}")
    for below in [each for each in lines if each[: len(at)] == at]:
        del lines[below]
    lines[at] = _SET


def _parts(key: str, values: Any) -> list[str]:
    """The words of a dotted key; a key of the recipe that the search's space holds, or shall hold, is one word."""
    parts = key.split(".")
    if not key.startswith(_SPACE):
        return parts
    found = _at(values, ("search", "space"))
    known = found if isinstance(found, dict) else {}
    ends = (end for end in range(len(parts), 2, -1) if ".".join(parts[2:end]) in known)
    end = next(ends, len(parts))
    return [*parts[:2], ".".join(parts[2:end]), *parts[end:]]


def _key(section: Any, part: str, override: str) -> str | int:
    """What a word of a dotted key means there: of a list, the number of one of its entries."""
    if not isinstance(section, list):
        return part
    if not part.isdecimal() or int(part) >= len(section):
        raise RecipeError(f"--set {override}: '{part}' is none of the list's {len(section)} entries, counted from 0")
    return int(part)


def _told_by_another(error: Any, errors: Sequence[Any]) -> bool:
    """Whether an error only says again, of a whole value, what another says better of a part of it."""
    if error["type"] == "literal_error":
        return isinstance(error["input"], dict)  # 'auto', where a section was written
    at = error["loc"]
    return error["type"] == "too_short" and any(len(each["loc"]) > len(at) == len(_common(each, at)) for each in errors)


def _joined(errors: Sequence[Any], values: Any) -> list[Any]:
    """One complaint for each value; of one that may be of several kinds, what each kind wants."""
    found: list[Any] = []
    for each in errors:
        before = found[-1] if found else None
        same = before and _without_tags(before["loc"], values) == _without_tags(each["loc"], values)
        if before and same and before["msg"].startswith(_SHOULD) and each["msg"].startswith(_SHOULD):
            found[-1] = before | {"msg": f"{before['msg']} or {each['msg'].removeprefix(_SHOULD)}"}
        else:
            found.append(each)
    return found


def _common(error: Any, at: Location) -> Location:
    return tuple(theirs for theirs, ours in zip(error["loc"], at, strict=False) if theirs == ours)


def _explain(error: Any, values: Any, name: str, lines: dict[Location, int]) -> str:
    location = _without_tags(error["loc"], values)
    key = ".".join(str(part) for part in location) or "recipe"
    where = _where(error, location, values, name, lines)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key '{key}': {_hint(location, values)}"
    if error["type"] == "missing" and isinstance(error["loc"][-1], int):
        return f"{where}: '{key}' holds too few values: number {error['loc'][-1] + 1} is missing"
    if error["type"] == "missing":
        return f"{where}: '{key}' is missing"
    form = _form(location, values)
    if error["type"] in _NO_MAPPING:
        return f"{where}: '{key}': must be a mapping{form and f', {form}'}, not {error['input']!r}"
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        expected, told = error.get("ctx", {}).get("expected_tags", ""), f"{where}: '{key}' needs a 'kind': {form}"
        return f"{where}: '{key}.kind' must be one of {expected}" if expected else told
    message = _PARSED.sub("", error["msg"].removeprefix("Value error, "))
    if error["type"] in _WORDED:
        message = _WORDED[error["type"]].format(**error.get("ctx", {}))
    if message.startswith(_SHOULD):
        message = f"must be {message.removeprefix(_SHOULD)}"
    said = error["type"] in ("value_error", "too_long", "too_short") or isinstance(error["input"], dict)
    given = "" if said else f", not {error['input']!r}"
    return f"{where}: '{key}': {message}{given}" if location else f"{where}: {message}"


def _where(error: Any, location: Location, values: Any, name: str, lines: dict[Location, int]) -> str:
    """Where a mistake was written; of a whole section: the first of its keys that the message names."""
    places = [location[:end] for end in range(len(location), 0, -1)]
    if error["type"] == "value_error":
        places = [(*location, *word.split(".")) for word in _WORDS.findall(error["msg"])] + places
    known = next((lines[place] for place in places if place in lines), None)
    default = error["type"] != "missing" and location not in lines and _at(values, location) is None
    if default or (known == _SET and not location):  # --workers and --students set keys, too
        known = None
    return "--set" if known == _SET else f"{name}:{known}" if known is not None else name


def _hint(location: Location, values: Any) -> str:
    """For an unknown key: the same key further down, else the nearest one beside it."""
    above, key = location[:-1], location[-1]
    below = [above]
    while below:
        below = [(*at, name) for at in below for name in sorted(_fields_at(Recipe, at, values))]
        found = [".".join(map(str, at)) for at in below if key in _fields_at(Recipe, at, values)]
        if found:
            return "did you mean " + " or ".join(f"'{each}.{key}'" for each in found) + "?"
    return nearest(str(key), _fields_at(Recipe, above, values))


def _form(location: Location, values: Any) -> str:
    """The sections that may stand at ``location``, as one would write them; empty where they have no ``kind``."""
    found = [each for each in _models_at(Recipe, location, values) if _kind(each)]
    return " or ".join(f"{{{', '.join(map(_told, each.model_fields.items()))}}}" for each in found)


def _told(field: tuple[str, FieldInfo]) -> str:
    name, info = field
    words = get_args(info.annotation) if get_origin(info.annotation) is Literal else ("...",)
    return f"{name}: {'|'.join(map(str, words))}"


def _without_tags(location: Sequence[str | int], values: Any) -> Location:
    """Drop the names of union members that pydantic puts into a location."""
    kept: list[str | int] = []
    for index, part in enumerate(location):
        if part in FORMS and _child(values, part) is None:
            continue
        missing_key = index == len(location) - 1 and isinstance(part, str) and isinstance(values, dict)
        child = _child(values, part)
        if child is not None or (missing_key and part != values.get("kind")):
            kept.append(part)
            values = child
    return tuple(kept)


def _at(values: Any, location: Location) -> Any:
    for part in location:
        values = _child(values, part)
    return values


def _child(values: Any, part: str | int) -> Any:
    if isinstance(values, dict):
        return values.get(part)
    return values[part] if isinstance(values, list) and isinstance(part, int) and part < len(values) else None


def _fields_at(model: type[BaseModel], location: Location, values: Any) -> set[str]:
    """Names of the keys that a section at ``location`` knows."""
    return {field for each in _models_at(model, location, values) for field in each.model_fields}


def _models_at(model: type[BaseModel], location: Location, values: Any) -> list[type[BaseModel]]:
    """The sections that may stand at ``location``; where the values say a kind, those of it."""
    models: list[type[BaseModel]] = [model]
    mapped: list[type[BaseModel]] = []
    for part in location:
        values = _child(values, part)
        if isinstance(part, int):
            continue
        if mapped:  # the part is a key of a mapping of sections
            models, mapped = mapped, []
            continue
        given = [each.model_fields[part].annotation for each in models if part in each.model_fields]
        models = [found for each in given for found in _models_in(each)]
        mapped = [found for each in given if get_origin(each) is dict for found in _models_in(get_args(each)[1])]
    return [m for m in models if isinstance(values, dict) and _kind(m) in (None, values.get("kind"))] or models


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return get_args(field.annotation)[0] if field is not None else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple):
        return [model for each in get_args(annotation) for model in _models_in(each)]
    return []

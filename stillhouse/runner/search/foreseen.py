"""What ``check`` says of a search; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from stillhouse.recipe.recipe import Recipe
from stillhouse.recipe.search import NumberSection, Range, RestSection, SamplerSection
from stillhouse.study.space import augmentations, check, space_of

_NAMES = {
    "params": "parameters",
    "macs": "multiply-adds",
    "bytes": "bytes of weights",
    "peak_bytes": "peak memory",
}


def foreseen(recipe: Recipe) -> list[tuple[str, str]]:
    """Lines of (what, how) for a person.

    Raises:
        RecipeError: the space makes no sense.
    """
    section = recipe.search
    assert section is not None
    check(recipe)
    _check_sampler(section.sampler)
    rungs = section.epochs(recipe.student.train.epochs)
    times = " and ".join([", ".join(map(str, rungs[:-1])), str(rungs[-1])] if len(rungs) > 1 else [str(rungs[0])])
    how = f"{section.trials} trials by {section.sampler.name}, compared after {times} epoch{'s' * (times != '1')}"
    how += f", where one of {section.reduction} goes on" if len(rungs) > 1 else ""
    how += f"; {section.members} members of a family at the last" if section.members > 1 else ""
    if section.after:
        _check_earlier(section.after)
        how += f"; the best points of {', '.join(section.after)} are tried first"
    space = space_of(recipe)
    return [("search", how), *(("varies", f"{key}: {_words(each)}") for key, each in space.items())]


def views(recipe: Recipe) -> tuple[int, int]:
    """How many views of each sample the teacher answers at most, of all augmentations together; and how many of those
    there are.

    Raises:
        RecipeError: the space makes no sense.
    """
    epochs = recipe.student.train.epochs
    if recipe.search is None:
        return recipe.data.views_in(epochs), 1
    check(recipe)
    seen = [recipe.data.model_copy(update={"augment": each}) for each in augmentations(recipe)]
    return sum(each.views_in(epochs) for each in seen), len(seen)


def student(recipe: Recipe) -> str:
    """What the student is, as far as that is known."""
    section = recipe.search
    assert section is not None
    given = {name: value for name, value in section.budget.model_dump().items() if value is not None}
    where = "" if section.target is None else " on the target"
    limits = [
        f"{value:g} ms{where}" if name == "latency_ms" else f"{100 * value:.3g} % of the {_NAMES[name]}"
        for name, value in given.items()
    ]
    if section.target is not None and (room := section.target.memory_bytes) is not None:
        limits += [f"{room:,} bytes of peak memory{where}"]
    finalists = section.families * section.finalists
    best = f"the best of up to {finalists} that are" if finalists > 1 else "the best, that is"
    return f"{best} trained to the end, with at most {' and '.join(limits)}"


def _check_sampler(section: SamplerSection) -> None:
    from stillhouse.study.sampling import sampler_of  # Optuna takes a quarter of a second to import

    sampler_of(section, 0)


def _check_earlier(folders: Sequence[str]) -> None:
    from stillhouse.study.record import check_earlier

    check_earlier(folders)


def _words(each: Range) -> str:
    if isinstance(each, RestSection):
        return f"1 - {each.rest_of}"
    if isinstance(each, NumberSection):
        said = f"{each.low:g} to {each.high:g}{', by its logarithm' if each.log else ''}"
    else:
        said = " | ".join(map(str, each.choices))
    when = " and ".join(f"{key} is {value}" for key, value in each.when.items())
    return f"{said}, where {when}" if when else said

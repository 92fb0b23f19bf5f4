"""When a search has tried enough, since too many can't be trained or cost too much; and what was not worth it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.search import SearchSection
from stillhouse.study.record import Trial

BEYOND = "beyond the budget"
"""Begins the words of why a trial ended that costs too much."""

SHORT = "short of the budget"
"""Of one whose widest network that keeps it leaves too much over."""

_UNFIT = (BEYOND, SHORT)
_TOO_DEAR = 10
_VALUES = re.compile(r"/\S+|\d[\d.,]*(e[+-]?\d+)?")


def may_begin(trials: Sequence[Trial], section: SearchSection) -> int:
    """How many trials may be begun in all: none any more where many in a row failed, or so many cost too much, and
    others may come to something.

    Raises:
        RecipeError: the same, and no other is left.
    """
    failed, dear = failed_in_a_row(trials, section), too_dear(trials, section)
    if not failed and not dear:
        return section.trials
    if any(each.open or (each.values and not each.why) for each in trials):
        return 0
    if failed:
        raise RecipeError(f"search: {len(failed)} trials in a row could not be trained: {common(failed)}")
    raise RecipeError(f"search.budget: {_told(dear, trials)}")


def failed_in_a_row(trials: Sequence[Trial], section: SearchSection) -> list[Trial]:
    """The last trials that ended, if so many of them failed as are borne; else none."""
    tried = [each for each in trials if not each.why.startswith(_UNFIT)]
    row = [each for each in tried if each.values or not each.open][-section.failures_max :]
    return row if len(row) == section.failures_max and not any(each.values for each in row) else []


def too_dear(trials: Sequence[Trial], section: SearchSection) -> list[Trial]:
    """Those that don't keep to the budget, if they are so many that the rest of the space is not looked for; else
    none.
    """
    found = [each for each in trials if each.why.startswith(_UNFIT)]
    return found if len(found) > _TOO_DEAR * section.trials else []


def _told(dear: Sequence[Trial], trials: Sequence[Trial]) -> str:
    return (
        f"{len(dear)} of the {len(trials)} networks that were tried don't keep to the budget, most of them: "
        f"{common(dear)}: a larger budget, or a search.space of smaller networks, has more that do"
    )


def common(trials: Sequence[Trial]) -> str:
    """What most of them ended of."""
    whys = [each.why for each in trials if each.why]
    kinds = [_VALUES.sub("#", why) for why in whys]  # steps, losses and files differ
    if not kinds:
        return "nothing was tried"
    most = max(dict.fromkeys(kinds), key=kinds.count)
    return f"{whys[kinds.index(most)]} ({kinds.count(most)} of {len(trials)})"


def worth_little(trials: Sequence[Trial], section: SearchSection, labels: NDArray[np.integer]) -> Iterator[str]:
    """What there is to warn of when a search is over.

    Args:
        labels: of the validation split.
    """
    if failed := failed_in_a_row(trials, section):
        yield f"search: the last {len(failed)} trials could not be trained, no more were begun: {common(failed)}"
    if dear := too_dear(trials, section):
        yield f"search.budget: no more trials were begun: {_told(dear, trials)}"
    best = max(each.values[-1] for each in trials if each.values)
    always = float(np.bincount(labels).max() / len(labels))
    if best <= always:
        yield (
            f"search: no trial learned anything: the best has {100 * best:.1f} % of the validation samples right, "
            f"one class for all has {100 * always:.1f} %; more epochs (search.rungs), another range of "
            "student.train.optimizer.learning_rate or a larger budget may help; or the teacher knows no better: its "
            "own accuracy stands above"
        )

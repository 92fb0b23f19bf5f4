"""How wide a network may be: as wide as what it may cost allows, found by counting and weighing what is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stillhouse.foundation.errors import ModelError
from stillhouse.models.build import build
from stillhouse.models.from_timm import timm_widths
from stillhouse.models.graphs.widths import (
    BetweenError,
    TooFewError,
    Widths,
    grown,
    polynomial,
    scaled,
    solved,
)
from stillhouse.models.network import Network
from stillhouse.recipe.architectures import ZOO_OPTIONS, ModelSection, StagesOptions
from stillhouse.recipe.section import Section
from stillhouse.runner.networks import Networks

GRAPH = "random_graph"
_FINE, _MOST = 1.02, 4096.0
_PROBES = (7, 157)

Options = dict[str, Any]
Beyond = Callable[[Network], float]
"""By how much a network is beyond the limit that it is nearest to, as a share of it; at most 0 within all of them."""


@dataclass(frozen=True)
class _Family:
    """Networks that differ in width only.

    Attributes:
        shape: relative width of each stage that has its own.
        wide: options of the network with so much in each stage.
        by_stage: whether stages may be widened one by one.
    """

    networks: Networks
    model: ModelSection
    shape: Sequence[float]
    wide: Callable[[Sequence[int]], Options]
    by_stage: bool = True

    def built(self, options: Options) -> Network:
        """One of them."""
        section = ModelSection.model_validate({**self.model.model_dump(), "options": options})
        return build(section, self.networks.interface, self.networks.statistics, 0, "student")

    def of(self, params: int) -> Options:
        """The widest of so many parameters.

        Raises:
            TooFewError: the smallest has more.
            BetweenError: it has much fewer, and the next has more.
        """
        if self.model.arch == GRAPH:  # it counts itself, faster
            options = {**self.model.options, "params": params, "widths": None}
            try:
                self.built(options)
            except ModelError as error:
                raise _of_width(error) or error from None
            return options

        if self.by_stage:
            return self.wide(solved(params, self.shape, self.count))
        return self.wide(solved(params, self.shape, self.count, tolerance=1.0, least=self.least))

    @property
    def least(self) -> float:
        """Channels of the first stage."""
        return 2.0 if self.by_stage else 1.0

    @cached_property
    def count(self) -> Callable[[Widths], int]:
        """Parameters by width; networks are built for it only once."""

        def count(widths: Widths) -> int:
            return sum(each.numel() for each in self.built(self.wide(widths)).parameters())

        return polynomial(count, len(self.shape), _PROBES)


def fitted(
    networks: Networks, model: ModelSection, params: float | None, most: int, beyond: Beyond | None
) -> Options | None:
    """Options of the widest network that keeps the limits; of the smallest, where none does.

    Args:
        model: of a family; its own width is not looked at.
        params: the most that it may have; of fewer than 95 % it has another width or none.
        most: parameters that it never has more of.
        beyond: of other limits, which wider networks are nearer to.

    Returns:
        None where the family has no width.

    Raises:
        TooFewError: the smallest has more parameters.
        ModelError: it can't be built; no width has about so many parameters.
    """
    try:
        family = _family(networks, model)
        if family is None or (params is None and beyond is None):
            return None
        if beyond is None:
            return family.of(int(params or most))
        if params is not None:
            try:
                whole, refused = family.of(int(params)), None
            except BetweenError as error:
                whole, refused = family.of(error.reached), error
            if beyond(family.built(whole)) <= 0:  # then only the parameters are near their limit
                if refused is not None:
                    raise refused
                return whole
        return _weighed(family, int(params or most), beyond)
    except TooFewError as error:
        told = f"{model.arch}: its smallest network has {error.least:,} parameters, {int(params or most):,} are allowed"
        raise TooFewError(told, error.least) from error
    except BetweenError as error:
        told = f"{model.arch}: of {int(params or most):,} parameters the widest that fits leaves more than 5 % over"
        raise BetweenError(f"{told}: it has {error.reached:,}", error.reached) from error
    except ModelError as error:
        raise ModelError(f"{model.arch}: {error}") from error


def _weighed(family: _Family, params: int, beyond: Beyond) -> Options:
    """The widest of at most so many parameters that keeps the other limits; its shape is kept, then stages are widened
    one by one.
    """

    def fits(widths: Widths) -> bool:
        return family.count(widths) <= params and beyond(family.built(family.wide(widths))) <= 0

    low, high = family.least, family.least
    if not fits(scaled(low, family.shape)):
        return family.wide(scaled(low, family.shape))
    while high < _MOST and fits(scaled(high, family.shape)):
        low, high = high, 2 * high
    while scaled(low, family.shape) != scaled(high, family.shape) and high / low > _FINE:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(scaled(middle, family.shape)) else (low, middle)
    widths = scaled(low, family.shape)
    for stage in range(len(widths)):
        while widths[stage] < _MOST and fits(wider := (*widths[:stage], widths[stage] + 1, *widths[stage + 1 :])):
            widths = wider
    return family.wide(widths)


def _family(networks: Networks, model: ModelSection) -> _Family | None:
    """What can be made wider or narrower, if anything."""
    options = dict(model.options)
    if model.arch == GRAPH:
        shape = grown(len(options["depth"]), options["growth"])
        return _Family(networks, model, shape, lambda widths: {**options, "params": None, "widths": list(widths)})
    if model.arch.startswith("timm:"):
        found = timm_widths(model.arch.removeprefix("timm:"), options)
        if found is None:
            return None
        by_stage = len(found.shape) > 1
        return _Family(networks, model, found.shape, lambda w: {**options, **found.wide(w)}, by_stage=by_stage)
    if not has_whole(options, "width"):
        return None
    if issubclass(ZOO_OPTIONS.get(model.arch, Section), StagesOptions):
        shape = grown(len(options["blocks"]), 2.0)
        return _Family(networks, model, shape, lambda widths: {**options, "widths": list(widths)})
    return _Family(networks, model, (1.0,), lambda widths: {**options, "width": widths[0]}, by_stage=False)


def _of_width(error: BaseException | None) -> TooFewError | BetweenError | None:
    """What an error says of a width, if it does."""
    while error is not None and not isinstance(error, TooFewError | BetweenError):
        error = error.__cause__
    return error


def has_whole(options: Mapping[str, Any], name: str) -> bool:
    """Whether a network has an option of that name, a whole number; so networks of one's own say what they have."""
    return type(options.get(name)) is int

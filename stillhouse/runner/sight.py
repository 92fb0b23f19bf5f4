"""How another process of a run comes by pixels: the cheapest way that gives the very same ones.

The run's decoded samples, mapped; else the data that the recipe names, decoded on demand; else pixels that are sent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.data.decode import Form
from stillhouse.data.encoded import EncodedTable
from stillhouse.data.open import survey
from stillhouse.data.order import Order
from stillhouse.data.shared import mapped
from stillhouse.data.stream import Stream
from stillhouse.data.table import Samples, Table
from stillhouse.foundation.errors import StillhouseError
from stillhouse.recipe.recipe import AugmentSection, Recipe
from stillhouse.runner.job import Job
from stillhouse.teachers.messages import unpack

Make = Callable[[NDArray[np.int64], NDArray[np.int64]], Batch]
"""The batch of given sample ids and views, with pixels only (labels are zeros, whatever they are)."""


class Sight(NamedTuple):
    """How this process comes by pixels.

    Attributes:
        reads: ``mapped``, ``own`` or ``sent``.
        make: by the run's augmentation; where pixels are sent it raises StillhouseError.
        by: the same by another augmentation.
        table: the decoded training samples; None where pixels are sent.
    """

    reads: str
    make: Make
    by: Callable[[AugmentSection], Make]
    table: Samples | None = None


def blind(sample_ids: NDArray[np.int64], views: NDArray[np.int64]) -> Batch:
    """Sees nothing."""
    raise StillhouseError("the data can't be seen from here, and no pixels came along")


BLIND = Sight("sent", blind, lambda augment: blind)


def sight_of(recipe: Recipe, job: Job) -> Sight:
    """The cheapest way that gives the probe's very pixels."""
    ids, views, inputs = asked(job)
    for reads, open_table in (("mapped", _mapped), ("own", _own)):
        try:
            table = open_table(recipe, job)
            if table is None:
                continue
            by = partial(_maker, recipe, job, table)
            make = by(recipe.data.augment)
            if torch.equal(make(ids, views).inputs, inputs):
                return Sight(reads, make, by, table)
        except StillhouseError:
            continue
    return BLIND


def _mapped(recipe: Recipe, job: Job) -> Samples | None:
    rows = mapped(job.samples)
    return None if rows is None else Table(rows, Form(job.form, job.image), np.empty(0, np.int64), ())


def _own(recipe: Recipe, job: Job) -> Samples | None:
    found = survey(recipe.data, recipe.seed)
    if found.digest != job.source_digest:
        return None
    return EncodedTable(found.train, found.form, recipe.data.size_px is not None, torch.get_num_threads())


def _maker(recipe: Recipe, job: Job, table: Samples, augment: AugmentSection) -> Make:
    stream = Stream(
        table,
        np.zeros(job.count, np.int64),
        Order(job.train_ids, 0, None),
        batch_size=1,
        seed=recipe.seed,
        augment=augment,
        crop_px=recipe.data.crop_px,
    )
    return stream.make


def asked(job: Job) -> tuple[NDArray[np.int64], NDArray[np.int64], torch.Tensor]:
    """The probe: sample ids, views, pixels."""
    ids, views, inputs = unpack(job.question)
    assert inputs is not None
    return ids, views, inputs

"""What a teacher in another process is told, as plain JSON: enough to answer like the run's own, and to prove it.

Weights and decoded samples are not in it but where they are: a file without a name, that a process of the same user on
the same machine can map. Whoever can't, reads the data that the recipe names, or has pixels sent.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.data.shared import told
from stillhouse.data.table import Table
from stillhouse.knowledge.ask import NOTHING, Ask
from stillhouse.models.interface import Interface
from stillhouse.recipe.load import dump
from stillhouse.runner.materials import Materials
from stillhouse.store.manifest import Identity
from stillhouse.teachers.messages import pack

_PROBE, _PROBE_BYTES = 8, 2**19
_PROBE_OWN = 64  # a mean over few views would refuse good engines by chance


@dataclass(frozen=True)
class Job:
    """Attributes:

    recipe: settled, as YAML.
    shape, image, classes, names: of the interface between data and models.
    logits, features: the question.
    identity: of the answers wanted (``store.manifest.Identity.parts``).
    weights: where the teacher's weights are, a canonical safetensors file (``path``), or that
        file itself (``content``); and its ``digest``.
    samples: where the decoded training samples are; None: nobody else can see them.
    form: shape of a decoded sample, which may be larger than a view.
    count: training samples in all, by id.
    source_digest: of the data as the source tells it, before decoding.
    train: which samples may be mixed in, one bit each, compressed; None where nothing is mixed.
    probe: a packed question about view 0 of a few samples, with pixels, by which a worker proves that it sees and
        answers the same.
    host, threads: of the run's own machine, and of each worker that it starts there.
    """

    recipe: str
    shape: tuple[int, ...]
    image: bool
    classes: int
    names: tuple[str, ...]
    logits: bool
    features: tuple[str, ...]
    identity: Mapping[str, Any]
    weights: Mapping[str, Any]
    samples: Mapping[str, Any] | None
    form: tuple[int, ...]
    count: int
    source_digest: str
    train: str | None
    probe: str
    host: str = ""
    threads: int = 1

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """The job that was told."""
        lists = ("shape", "names", "features", "form")
        fields: dict[str, Any] = dict(values)
        fields |= {key: tuple(fields[key]) for key in lists}
        return cls(**fields)

    @property
    def ask(self) -> Ask:
        """The question."""
        return Ask(self.logits, self.features)

    @property
    def interface(self) -> Interface:
        """Between data and models."""
        return Interface(self.shape, self.image, self.classes, self.names)

    @property
    def train_ids(self) -> NDArray[np.int64]:
        """[N] samples that partners are drawn from, ascending; all where nothing is mixed."""
        if self.train is None:
            return np.arange(self.count)
        packed = np.frombuffer(zlib.decompress(base64.b64decode(self.train)), np.uint8)
        return np.flatnonzero(np.unpackbits(packed, count=self.count))

    @property
    def question(self) -> bytes:
        """The probe's bytes."""
        return base64.b64decode(self.probe)


def job_of(materials: Materials, ask: Ask, identity: Identity | None) -> Job:
    """The job of answering a run's students; where the weights are, and workers live, is still to be said."""
    recipe, data, interface = materials.recipe, materials.data, materials.interface
    table, batch = data.table, probe_of(materials)
    return Job(
        recipe=dump(recipe),
        shape=interface.shape,
        image=interface.image,
        classes=interface.classes,
        names=interface.names,
        logits=ask.logits,
        features=ask.features,
        identity=identity.parts if identity is not None else {},
        weights={},
        samples=told(table.rows, table.descriptor) if isinstance(table, Table) else None,
        form=tuple(table.form.shape),
        count=len(data.labels),
        source_digest=data.survey.digest,
        train=_bits(data.splits.train, len(data.labels)) if recipe.data.augment.mix else None,
        probe=base64.b64encode(pack(batch.sample_ids, batch.views, batch.inputs)).decode(),
    )


def sight_job(materials: Materials) -> Job:
    """What a process is told that needs to see the data, and answers nothing."""
    train = _bits(materials.data.splits.train, len(materials.data.labels))  # a trial may mix what the recipe does not
    return replace(job_of(materials, NOTHING, None), train=train)


def probe_of(materials: Materials) -> Batch:
    """View 0 of a few samples, evenly over the training split."""
    train, size = materials.data.splits.train, materials.interface.zeros(1, torch.device("cpu")).nbytes
    most = _PROBE_OWN if materials.recipe.fleet.engine == "own" else _PROBE
    count = min(max(_PROBE_BYTES // size, 1), most, len(train))
    ids = train[np.linspace(0, len(train) - 1, count).astype(np.int64)]
    return materials.stream(materials.recipe.student.train, 0).make(ids, np.zeros(len(ids), np.int64))


def _bits(sample_ids: NDArray[np.int64], count: int) -> str:
    chosen = np.zeros(count, np.bool_)
    chosen[sample_ids] = True
    return base64.b64encode(zlib.compress(np.packbits(chosen).tobytes())).decode()

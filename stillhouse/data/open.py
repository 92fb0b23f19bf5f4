"""From the recipe's data section to sources, splits and decoded tables.

``survey`` opens the sources and cuts the splits, torch-free and without decoding more than a few samples: what
``check`` says. ``open_data`` goes on and decodes, unless nothing decoded is to be kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.decode import Form
from stillhouse.data.digits import DigitsSource
from stillhouse.data.encoded import EncodedTable
from stillhouse.data.folder import FolderSource
from stillhouse.data.mapped import MappedSource
from stillhouse.data.mix import mix_identity
from stillhouse.data.parquet import ParquetSource
from stillhouse.data.source import Source, Splits
from stillhouse.data.splits import check_labels, cut
from stillhouse.data.table import Samples, Table, build_table, first_form
from stillhouse.data.views import FORMAT
from stillhouse.foundation.errors import DataError, StillhouseError
from stillhouse.foundation.files import digest_json, sha256
from stillhouse.foundation.functions import load_function, told
from stillhouse.recipe import recipe as r


@dataclass(frozen=True)
class Survey:
    """What the data are, before decoding. ``test`` is ``train`` itself where the source has no test split.

    Attributes:
        digest: of the sources' digests, form, fractions and ``bad_samples``: with the seed, equal digests mean equal
            splits.
    """

    train: Source
    test: Source
    splits: Splits
    class_names: tuple[str, ...]
    form: Form
    seed: int
    digest: str

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclass(frozen=True)
class Data:
    """The data. Ids of ``splits`` count in ``table``, those of the test split in ``test_table``.

    Attributes:
        digest: of the survey's digest and of what was really read, rows, labels and skipped ids of both tables (of the
            sources' own digests where nothing decoded is kept): a run is not to be resumed with another.
        views_identity: plain JSON: all that fixes a view's bits, the training table's digest and form, augmentation,
            crop, seed; where views are mixed, the training split too.
    """

    survey: Survey
    splits: Splits
    table: Samples
    test_table: Samples
    digest: str
    views_identity: dict[str, Any]

    @property
    def views_digest(self) -> str:
        """Of :attr:`views_identity`: equal digests mean that equal keys give equal bits."""
        return digest_json(self.views_identity)

    def seen(self, section: r.DataSection) -> Data:
        """The same samples and splits, in views of another section's augmentation."""
        return replace(self, views_identity=_views_identity(self.survey, section, self.table, self.splits.train))

    @property
    def samples_known(self) -> bool:
        """Whether a change of any training sample's pixels changes ``views_identity``."""
        return self.table.kept or self.survey.train.exact

    @property
    def labels(self) -> NDArray[np.int64]:
        """[N] labels by training sample id."""
        return self.survey.train.labels

    @property
    def skipped(self) -> tuple[str, ...]:
        """The stories of all samples that were left out."""
        return tuple(reason for table in self._tables for reason in table.reasons)

    @property
    def greyed(self) -> int:
        """Number of colour images that were made grey, because the tables are."""
        return sum(table.greyed for table in self._tables)

    @property
    def _tables(self) -> tuple[Samples, ...]:
        return (self.table,) if self.test_table is self.table else (self.table, self.test_table)


def open_sources(section: r.DataSection, live: tuple[Any, Any] | None) -> tuple[Source, Source | None]:
    """The training source and, where there is one of its own, the test source.

    Args:
        live: (train, test or None) datasets for a source of kind ``live``.
    """
    source = section.source
    if isinstance(source, r.DigitsSource):
        return DigitsSource(), None
    if isinstance(source, r.ParquetSource):
        files = [Path(path) for path in (source.train, source.test) if path]
        tables = [ParquetSource(file, source.image, source.label) for file in files]
        return tables[0], tables[1] if len(tables) > 1 else None
    if isinstance(source, r.FolderSource):
        train = FolderSource(Path(source.train))
        return train, FolderSource(Path(source.test), train.class_names) if source.test else None
    if isinstance(source, r.FunctionSource):
        made = [MappedSource(_made(each), each.rpartition(":")[2]) for each in (source.train, source.test) if each]
        return made[0], made[1] if len(made) > 1 else None
    if live is None:
        raise DataError(
            "this recipe's data were handed over from Python: go on with the call that began the run "
            "(stillhouse.distill, blockwise or search), with resume=True; an export is asked for there, too, when the "
            "run begins: export={'onnx': True}; a best.yaml is run by "
            "stillhouse.run('best.yaml', teacher=..., data=...)"
        )
    return MappedSource(live[0], "train"), MappedSource(live[1], "test") if live[1] is not None else None


def survey(section: r.DataSection, seed: int, live: tuple[Any, Any] | None = None) -> Survey:
    """Open the sources, check labels, cut the splits.

    Raises:
        DataError: anything wrong that can be seen without decoding all of it.
    """
    train, test = open_sources(section, live)
    names = _class_names(train)
    check_labels(train, len(names))
    if test is not None:
        check_labels_of_test(test, len(names))
    everything = np.arange(len(train.labels))
    stays, test_ids = (
        cut(everything, train.labels, section.test_fraction, seed, "test")
        if test is None
        else (everything, np.arange(len(test.labels)))
    )
    train_ids, validation_ids = cut(stays, train.labels, section.validation_fraction, seed, "validation")
    splits = Splits(train_ids, validation_ids, test_ids)
    form = first_form(train, section.size_px, section.channels)
    check_views(section, form)
    identity = [train.digest, test.digest if test else None, form.shape, section.size_px, section.validation_fraction]
    digest = digest_json([*identity, section.test_fraction if test is None else None, section.bad_samples])
    return Survey(train, test or train, splits, names, form, seed, digest)


def open_data(
    found: Survey,
    section: r.DataSection,
    scratch: Path,
    tell: Callable[[str, int, int], None],
    *,
    shared: bool = False,
) -> Data:
    """Decode everything, or nothing yet where ``keep_decoded`` is false.

    A Parquet source is closed once decoded: its encoded images are not held beside the tables.

    Args:
        scratch: folder for what does not fit into memory.
        tell: called with (source's name, samples done, samples in all).
        shared: let other processes of this user map the decoded training samples.

    Raises:
        DataError: an unreadable sample (``bad_samples: stop``), or too few are left.
    """
    tables: dict[int, Samples] = {}
    left_bytes = section.memory_max_mb * 2**20
    for source in (found.train, found.test):
        if id(source) in tables:
            continue
        if section.keep_decoded:
            decoded = _decoded(found, source, section, left_bytes, scratch, tell, shared and source is found.train)
            left_bytes -= 0 if isinstance(decoded.rows, np.memmap) else decoded.rows.nbytes
            tables[id(source)] = decoded
        else:
            tables[id(source)] = EncodedTable(source, found.form, section.size_px is not None, _threads(source))
    table, test_table = tables[id(found.train)], tables[id(found.test)]
    splits = Splits(
        np.setdiff1d(found.splits.train, table.skipped),
        np.setdiff1d(found.splits.validation, table.skipped),
        np.setdiff1d(found.splits.test, test_table.skipped),
    )
    identity = _views_identity(found, section, table, splits.train)
    data = Data(found, splits, table, test_table, _content(found, table, test_table), identity)
    _check_left(data)
    return data


def _decoded(
    found: Survey,
    source: Source,
    section: r.DataSection,
    memory_max_bytes: int,
    scratch: Path,
    tell: Callable[[str, int, int], None],
    shared: bool,
) -> Table:
    table = build_table(
        source,
        form=found.form,
        resize=section.size_px is not None,
        skip=section.bad_samples == "skip",
        memory_max_bytes=memory_max_bytes,
        scratch=scratch,
        threads=_threads(source),
        tell=lambda done, count: tell(source.name, done, count),
        shared=shared,
    )
    if isinstance(source, ParquetSource):
        source.close()
    return table


def _threads(source: Source) -> int:
    return 1 if isinstance(source, MappedSource) else os.cpu_count() or 1


def check_labels_of_test(test: Source, classes: int) -> None:
    """Test labels must be classes of the training data; not every class need be there."""
    wrong = (test.labels < 0) | (test.labels >= classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{test.describe(row)} has label {test.labels[row]}; the training data have classes 0..{classes - 1}"
        )


def _class_names(train: Source) -> tuple[str, ...]:
    if train.class_names:
        return train.class_names
    count = int(train.labels.max(initial=-1)) + 1
    if count > len(train.labels) > 0:  # before a name is made for each of a billion classes
        row = int(np.argmax(train.labels))
        raise DataError(
            f"{train.describe(row)} has label {count - 1}, which would make {count:,} classes of "
            f"{len(train.labels):,} samples: number the classes 0, 1, 2 and so on"
        )
    return tuple(str(label) for label in range(count))


def _content(found: Survey, table: Samples, test_table: Samples) -> str:
    parts = [
        [each.digest, each.skipped.tolist(), sha256(source.labels.tobytes())]
        for each, source in ((table, found.train), (test_table, found.test))
    ]
    return digest_json([found.digest, parts])


def _views_identity(
    found: Survey, section: r.DataSection, table: Samples, train_ids: NDArray[np.int64]
) -> dict[str, Any]:
    mix = section.augment.mix
    return {
        "format": FORMAT,
        "samples": table.digest,
        "shape": list(table.form.shape),
        "image": table.form.image,
        "augment": section.augment.model_dump(mode="json"),
        "crop_px": list(section.crop_px) if section.crop_px else None,
        "seed": found.seed,
        "mixing": mix_identity(mix, train_ids) if mix else None,
    }


def _check_left(data: Data) -> None:
    """What ``bad_samples: skip`` left must still be worth a run: samples in each split, each class in training."""
    first = (*data.skipped, "none was skipped")[0]
    for name in ("train", "validation", "test"):
        if len(getattr(data.splits, name)) == 0:
            raise DataError(f"no readable sample is left in the {name} split; first skipped: {first}")
    gone = np.setdiff1d(np.arange(data.survey.classes), data.labels[data.splits.train])
    if len(gone):
        name = data.survey.class_names[gone[0]]
        raise DataError(f"no readable training sample of class '{name}' is left; first skipped: {first}")


def check_views(section: r.DataSection, form: Form) -> None:
    """Look whether samples of a form can be augmented so.

    Raises:
        DataError: names the key.
    """
    augment = section.augment
    moved = section.crop_px or augment.pad_px or augment.flip or augment.colour or augment.erase
    if not form.image and len(form.shape) != 3 and moved:
        raise DataError(
            f"samples of shape {form.shape} are no images: remove data.crop_px and all of data.augment but a mix of "
            "kind mixup"
        )
    if len(form.shape) != 3 and isinstance(augment.mix, r.CutmixSection):
        raise DataError(f"data.augment.mix: cutmix cuts images; samples of shape {form.shape} can have kind: mixup")
    if not form.image and augment.colour:
        raise DataError("data.augment.colour wants 8-bit images; these samples are floating-point")
    if section.crop_px and any(c > s for c, s in zip(section.crop_px, form.shape[1:], strict=True)):
        raise DataError(f"data.crop_px {section.crop_px} is larger than the images ({form.shape[1:]})")


def _made(reference: str) -> Any:
    function = load_function(reference)
    try:
        return function()
    except StillhouseError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(f"{reference} raised {told(error, reference.rpartition(':')[0])}") from error

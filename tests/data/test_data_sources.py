"""The sources: the same ids for the same data, digests that notice changes, and what is refused."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stillhouse.data.decode import decode, form_of
from stillhouse.data.digits import DigitsSource
from stillhouse.data.folder import FolderSource
from stillhouse.data.open import open_data, survey
from stillhouse.data.parquet import ParquetSource
from stillhouse.data.source import Source
from stillhouse.foundation.errors import DataError
from stillhouse.recipe.recipe import DataSection


def png(value: int, size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, value).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(source: Source, sample_id: int) -> np.ndarray[Any, Any]:
    sample = source.read(sample_id)
    return decode(sample, form_of(sample, None, None), resize=False)


def test_digits() -> None:
    """The bundled digits: 1,797 grey 8x8 images of ten classes, with a stable digest."""
    source = DigitsSource()
    assert source.labels.shape == (1797,)
    assert sorted(set(source.labels.tolist())) == list(range(10))
    assert pixels(source, 0).shape == (1, 8, 8)
    assert pixels(source, 0).max() == 239
    assert source.digest == DigitsSource().digest
    assert source.digest.startswith("0b7e9c3202d7bcd2")


def test_digits_without_their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where scikit-learn does not bring the digits, it is said what to install."""
    monkeypatch.setattr("stillhouse.data.digits.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install 'scikit-learn"):
        DigitsSource()


@pytest.mark.parametrize("struct", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_parquet_rows(struct: bool, large: bool, tmp_path: Path) -> None:
    """Plain bytes and Hugging Face's struct give the same samples under the same ids."""
    images = pa.array([png(n) for n in range(10)], pa.large_binary() if large else pa.binary())
    if struct:
        images = pa.StructArray.from_arrays([images, pa.array([f"{n}.png" for n in range(10)])], ["bytes", "path"])
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"img": images, "extra": list(range(10)), "y": [n % 2 for n in range(10)]}), path, row_group_size=3
    )
    source = ParquetSource(path, "img", "y")
    assert [int(pixels(source, n)[0, 0, 0]) for n in range(10)] == list(range(10))
    assert source.labels.tolist() == [n % 2 for n in range(10)]
    assert source.describe(3) == f"{path} row 3"
    assert source.class_names == ()


def test_parquet_digest_and_class_names(tmp_path: Path) -> None:
    """The digest notices a changed label; class names come from the file's metadata."""
    path = tmp_path / "x.parquet"
    digests = []
    for labels in ([0, 1], [1, 0], [0, 1]):
        table = pa.table({"image": [png(1), png(2)], "label": labels})
        pq.write_table(table.replace_schema_metadata({"classes": "cat, dog"}), path)
        digests.append(ParquetSource(path, "image", "label").digest)
    assert digests[0] == digests[2] != digests[1]
    assert ParquetSource(path, "image", "label").class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("columns", "story"),
    [
        ({"imge": [b""], "label": [0]}, r"no column 'image' \(data.source.image\): did you mean 'imge'"),
        ({"image": [b""], "y": [0]}, r"no column 'label' \(data.source.label\): known here: image, y"),
        ({"image": ["x"], "label": [0]}, "holds string, not encoded images"),
        ({"image": [{"path": "x"}], "label": [0]}, "not encoded images"),
        ({"image": [b""], "label": [0.5]}, "holds double, not class numbers"),
        ({"image": [b"", b""], "label": [0, None]}, r"row 1 has no label \(1 rows have none\)"),
    ],
)
def test_parquet_columns_that_do_not_serve(columns: dict[str, list[Any]], story: str, tmp_path: Path) -> None:
    """A missing or unfit column is refused by file and column."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=story) as found:
        ParquetSource(path, "image", "label")
    assert str(path) in str(found.value)


def test_parquet_that_is_damaged(tiny_data: Path) -> None:
    """A truncated, overwritten or foreign Parquet file is refused by name."""
    whole = tiny_data.read_bytes()
    damaged = bytearray(whole)
    damaged[200:2000] = bytes(1800)
    for content in (whole[:-100], whole[:1000], b"", b"words", bytes(damaged)):
        tiny_data.write_bytes(content)
        with pytest.raises(DataError, match=r"tiny\.parquet can't be read as Parquet"):
            ParquetSource(tiny_data, "image", "label")


def test_parquet_row_without_an_image(tmp_path: Path) -> None:
    """A row whose image is missing is an unreadable sample, not a crash."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [png(1), None], "label": [0, 1]}), path)
    with pytest.raises(ValueError, match="holds no image"):
        ParquetSource(path, "image", "label").read(1)


def test_cifar_is_read(cifar: Path) -> None:
    """The CIFAR-10 files open with their class names, and their first image decodes."""
    source = ParquetSource(cifar / "cifar10-jpeg-test.parquet", "image", "label")
    assert len(source.labels) == 10_000
    assert source.class_names[:2] == ("airplane", "automobile")
    assert pixels(source, 0).shape == (3, 32, 32)


def fill(root: Path, **classes: int) -> Path:
    for label, (name, count) in enumerate(classes.items()):
        (root / name / "deep").mkdir(parents=True)
        for n in range(count):
            (root / name / ("deep" if n % 2 else "") / f"{n}.png").write_bytes(png(50 * label + n))
    return root


def test_folder_ids_follow_the_sorted_paths(tmp_path: Path) -> None:
    """Ids, labels and names follow sorted paths; hidden and foreign files are no samples."""
    root = fill(tmp_path / "train", dog=3, cat=2)
    for name in (".DS_Store", "dog/.hidden.png", "dog/notes.txt"):
        (root / name).write_bytes(b"x")
    (root / ".git").mkdir()
    source = FolderSource(root)
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 1, 1, 1]
    found = [Path(source.describe(n)).relative_to(root).as_posix() for n in range(5)]
    assert found == ["cat/0.png", "cat/deep/1.png", "dog/0.png", "dog/2.png", "dog/deep/1.png"]
    assert [int(pixels(source, n)[0, 0, 0]) for n in range(5)] == [50, 51, 0, 2, 1]


def test_folder_digest_notices_names_and_sizes(tmp_path: Path) -> None:
    """A renamed, added or resized image changes the digest; a copy elsewhere does not."""
    first, copy = fill(tmp_path / "a", cat=2, dog=2), fill(tmp_path / "b", cat=2, dog=2)
    digest = FolderSource(first).digest
    assert FolderSource(copy).digest == digest
    (copy / "cat" / "0.png").rename(copy / "cat" / "9.png")
    renamed = FolderSource(copy).digest
    (copy / "cat" / "9.png").write_bytes(png(1, (30, 30)))
    resized = FolderSource(copy).digest
    assert len({digest, renamed, resized}) == 3


def test_folder_leaves_no_file_open(tmp_path: Path) -> None:
    """Reading a thousand images, animated and broken ones too, does not use up the process's file handles."""
    root = fill(tmp_path, cat=1, dog=1)
    frames = [Image.new("P", (4, 4), n) for n in range(3)]
    frames[0].save(root / "cat" / "0.gif", save_all=True, append_images=frames[1:])
    source = FolderSource(root)
    before = len(os.listdir("/proc/self/fd"))
    kept = [source.read(n) for n in range(3) for _ in range(10)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(kept) == 30


def test_folders_that_do_not_serve(tmp_path: Path) -> None:
    """A missing, empty or flat folder, an empty class and an unknown class are refused by path."""
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "0.png").write_bytes(png(0))
    with pytest.raises(DataError, match="flat holds no folders"):
        FolderSource(tmp_path / "flat")
    with pytest.raises(DataError, match=r"0\.png is not a folder"):
        FolderSource(tmp_path / "flat" / "0.png")
    root = fill(tmp_path / "train", cat=1, dog=1, emu=0)
    with pytest.raises(DataError, match="emu holds no image"):
        FolderSource(root)
    with pytest.raises(DataError, match="emu: the training data have no such class"):
        FolderSource(root, ("cat", "dog"))


def test_test_folder_may_lack_a_class(tmp_path: Path) -> None:
    """A test folder takes the numbering of its train folder, also when a class is missing there."""
    source = FolderSource(fill(tmp_path / "test", dog=2), ("cat", "dog"))
    assert source.labels.tolist() == [1, 1]


def test_a_class_of_which_nothing_is_left_is_told(tmp_path: Path) -> None:
    """Skipping must not empty a class without a word."""
    root = fill(tmp_path / "train", cat=6, dog=6)
    for file in (root / "dog").rglob("*.png"):
        file.write_bytes(b"no image")
    section = DataSection.model_validate({"source": {"kind": "folder", "train": str(root)}, "bad_samples": "skip"})
    with pytest.raises(DataError, match=r"no readable training sample of class 'dog' is left; first skipped: .*png"):
        open_data(survey(section, 0), section, tmp_path, lambda *_: None)


def test_a_wild_label_does_not_make_a_billion_classes(tmp_path: Path) -> None:
    """A label far beyond the number of samples is refused at once, with its row."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [png(0)] * 4, "label": [0, 1, 4_000_000_000, 1]}), path)
    section = DataSection.model_validate({"source": {"kind": "parquet", "train": str(path)}})
    with pytest.raises(DataError, match=r"x\.parquet row 2 has label 4000000000"):
        survey(section, 0)


def test_the_survey_digest_notices_what_matters(tmp_path: Path, tiny_data: Path) -> None:
    """The digest of the data covers files, form and splits: what a resumed run must find unchanged."""
    source = {"kind": "parquet", "train": str(tiny_data)}
    variants: list[dict[str, Any]] = [
        {},
        {"size_px": [5, 5]},
        {"channels": 3},
        {"validation_fraction": 0.3},
        {"test_fraction": 0.3},
        {"bad_samples": "skip"},
        {"source": {**source, "test": str(tiny_data)}},
    ]
    sections = [DataSection.model_validate({"source": source, **each}) for each in variants]
    digests = [survey(each, 0).digest for each in sections]
    assert len(set(digests)) == len(variants)
    assert survey(sections[0], 0).digest == digests[0]
    assert len(survey(sections[6], 0).splits.test) == 120

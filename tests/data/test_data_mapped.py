"""Datasets of one's own: items of every form, labels from where they are, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.data.decode import decode, form_of
from stillhouse.data.mapped import MappedSource
from stillhouse.data.open import open_data, survey
from stillhouse.data.source import Source
from stillhouse.foundation.errors import DataError
from stillhouse.recipe.recipe import DataSection


def pixels(source: Source, sample_id: int) -> np.ndarray[Any, Any]:
    sample = source.read(sample_id)
    return decode(sample, form_of(sample, None, None), resize=False)


class Items:
    """A map-style dataset of given items."""

    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Counting(Items):
    """Refuses item 99, which is neither among the first nor one that is looked at."""

    def __getitem__(self, index: int) -> Any:
        assert index != 99
        return self.items[index]


def grey(value: int) -> np.ndarray[Any, Any]:
    return np.full((4, 5), value, np.uint8)


SAMPLES = {
    "arrays": grey,
    "pictures": lambda value: Image.fromarray(grey(value)),
    "tensors": lambda value: torch.from_numpy(grey(value))[None],
    "tensors that learn": lambda value: torch.full((4, 5), float(value)).requires_grad_(),
    "vectors": lambda value: [float(value), 1.0, 2.0],
}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("item", ["tuple", "list", "image", "img", "pixel_values", "x"])
def test_items_of_every_form(kind: str, item: str) -> None:
    """Tuples, lists and mappings of arrays, pictures, tensors and vectors are read alike."""
    items: list[Any] = []
    for value in (7, 8):
        pair = (SAMPLES[kind](value), value % 2)
        items.append(
            list(pair)
            if item == "list"
            else pair
            if item == "tuple"
            else {item: pair[0], "label": torch.tensor(pair[1])}
        )
    source = MappedSource(Items(items), "mine")
    assert source.labels.tolist() == [1, 0]
    assert [float(pixels(source, n).ravel()[0]) for n in range(2)] == [7.0, 8.0]
    assert source.describe(1) == "mine item 1"


def test_labels_are_taken_from_the_dataset_where_it_has_them() -> None:
    """``targets`` or ``labels`` of a dataset are used instead of going through all items; class names, too."""
    items = [(grey(0), 0), (grey(1), 1)]
    assert MappedSource(Counting(items * 50, targets=[0, 1] * 50), "x").labels.tolist() == [0, 1] * 50
    assert MappedSource(Items(items, labels=torch.tensor([0, 1])), "x").labels.tolist() == [0, 1]
    assert MappedSource(Items(items, targets=[1, 0, 1]), "x").labels.tolist() == [0, 1]
    assert MappedSource(Items(items, labels=len), "x").labels.tolist() == [0, 1]
    assert MappedSource(Items(items, classes=["a", "b"]), "x").class_names == ("a", "b")
    assert MappedSource(Items(items, classes=2), "x").class_names == ()


def test_dataset_digest() -> None:
    """The digest notices labels and early samples, and yields to the dataset's own."""
    base = MappedSource(Items([(grey(0), 0), (grey(1), 1)]), "x").digest
    assert MappedSource(Items([(grey(0), 0), (grey(1), 1)]), "y").digest == base
    assert MappedSource(Items([(grey(0), 1), (grey(1), 0)]), "x").digest != base
    assert MappedSource(Items([(grey(0), 0), (grey(2), 1)]), "x").digest != base
    assert MappedSource(Items([(grey(0), 0)], digest="mine"), "x").digest == "mine"


class Broken(Items):
    """Raises at its second item."""

    def __getitem__(self, index: int) -> Any:
        if index == 1:
            raise OSError("disk on fire")
        return self.items[index]


@pytest.mark.parametrize(
    ("dataset", "story"),
    [
        (42, "needs __len__ and __getitem__; int lacks one"),
        (Items([]), "the dataset is empty"),
        (Items([(grey(0), "cat")]), "x item 0 has label 'cat': labels must be class numbers"),
        (Items([(grey(0), 0), (grey(0), 0.5)]), "x item 1 has label 0.5"),
        (Items([(grey(0), None)]), "x item 0 has label None"),
        (Items([(grey(0), [0, 1])]), "x item 0 has label"),
        (Items([(grey(0), torch.tensor([0, 1]))]), "x item 0 has label"),
        (Items([(grey(0), float("nan"))]), "x item 0 has label nan"),
        (Items([(grey(0), 10**30)]), "x item 0 has label 1000"),
        (Items([grey(0)]), "x item 0 is ndarray: wanted"),
        (Items([{"picture": grey(0), "label": 0}]), r"x item 0 has keys \['label', 'picture'\]"),
        (Broken([(grey(0), 0)] * 3), "x item 1 has no readable label: the dataset raised OSError: disk on fire"),
    ],
)
def test_datasets_that_do_not_serve(dataset: Any, story: str) -> None:
    """A dataset of another form, or with labels that are no class numbers, is refused by item."""
    with pytest.raises(DataError, match=story):
        MappedSource(dataset, "x")


def test_a_broken_item_is_named_or_skipped(tmp_path: Path) -> None:
    """An item that raises stops the run by its number, or is left out where the recipe says so."""
    dataset = Broken([(grey(n), n % 2) for n in range(12)], targets=[n % 2 for n in range(12)])
    section = DataSection.model_validate({"source": {"kind": "live"}})
    with pytest.raises(DataError, match=r"train item 1: the dataset raised OSError: disk on fire .*bad_samples: skip"):
        open_data(survey(section, 0, (dataset, None)), section, tmp_path, lambda *_: None)
    section = section.model_copy(update={"bad_samples": "skip"})
    data = open_data(survey(section, 0, (dataset, None)), section, tmp_path, lambda *_: None)
    assert data.skipped == ("train item 1: the dataset raised OSError: disk on fire",)
    assert 1 not in np.concatenate([data.splits.train, data.splits.validation, data.splits.test])


class Series:
    """What matters of a pandas Series whose rows were shuffled: [] looks up by its index, .iloc by place."""

    def __init__(self, values: list[int]) -> None:
        self.iloc = values

    def __len__(self) -> int:
        return len(self.iloc)

    def __getitem__(self, key: int) -> int:
        return self.iloc[::-1][key]


def test_labels_in_a_series_are_taken_by_place() -> None:
    """A pandas Series is read in its order, whatever its index says."""
    labels = [0, 0, 1, 0, 1, 1]
    dataset = Items([(grey(n), label) for n, label in enumerate(labels)], targets=Series(labels))
    assert MappedSource(dataset, "x").labels.tolist() == labels


@pytest.mark.parametrize("wrong", [0, 20, 35])
def test_labels_that_disagree_with_the_items(wrong: int) -> None:
    """A target_transform, which changes the items' labels but not the list of them, is found and told by item."""
    items = [(grey(n), n % 2 if n < wrong else 3) for n in range(40)]
    with pytest.raises(DataError, match=rf"x item {wrong} has label 3, but .* says {wrong % 2}: make them agree"):
        MappedSource(Items(items, targets=[n % 2 for n in range(40)]), "x")


class Shaken(Items):
    """Transforms some items at random."""

    reads = 0

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        sample, label = self.items[index]
        return (sample + np.uint8(self.reads) if index in self.shaken else sample), label


@pytest.mark.parametrize("shaken", [0, 20])
def test_random_transforms_are_refused(shaken: int) -> None:
    """Teacher and student would see different pictures: an item that changes when it is read again is refused."""
    items = [(grey(n), n % 2) for n in range(40)]
    with pytest.raises(DataError, match=rf"x item {shaken} differs each time .* random transforms; data.augment"):
        MappedSource(Shaken(items, shaken={shaken}, digest="mine"), "x")


def test_items_that_are_equal_are_not_random() -> None:
    """Lists, objects and pictures made anew at each reading are not taken for random."""

    class Fresh(Items):
        def __getitem__(self, index: int) -> Any:
            return self.items[index](), index % 2

    kept: list[Any] = []  # so that a second object never stands where the first one stood

    def objects() -> np.ndarray[Any, Any]:
        kept.append(np.array([float("1.5"), float("2.5")], object))
        return kept[-1]

    for make in (lambda: [1.5, 2.5], lambda: Image.new("L", (3, 3)), objects):
        assert MappedSource(Fresh([make] * 4), "x").labels.tolist() == [0, 1, 0, 1]

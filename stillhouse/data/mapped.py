"""Any map-style dataset as a source: torchvision's, Hugging Face's, or your own class.

An item is ``(sample, label)`` or a mapping with 'image' (or 'img', 'pixel_values', 'x') and 'label' (or
'labels', 'y'). Labels are read once at the start: from ``targets`` or ``labels`` of the dataset where it has them,
else by going through all items, which decodes everything once more. The digest covers the labels and the
first samples; give the dataset an attribute ``digest`` (a string) to say it exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.foundation.errors import DataError
from stillhouse.foundation.files import sha256

_SAMPLE_KEYS = ("image", "img", "pixel_values", "x")
_LABEL_KEYS = ("label", "labels", "y")


class MappedSource:
    """A wrapped dataset.

    Raises:
        DataError: no ``__len__``/``__getitem__``, empty, items or labels of an unknown form.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.name = name
        self._dataset = dataset
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise DataError(f"{name}: a dataset needs __len__ and __getitem__; {type(dataset).__name__} lacks one")
        if len(dataset) == 0:
            raise DataError(f"{name}: the dataset is empty")
        self.labels = self._labels()
        self.class_names = tuple(str(each) for each in getattr(dataset, "classes", ()))
        self.digest = str(getattr(dataset, "digest", None) or self._digest())

    def read(self, sample_id: int) -> Any:
        """The sample of one item, as the dataset gives it (torch tensors become arrays)."""
        sample = self._pair(sample_id)[0]
        return sample.numpy() if hasattr(sample, "numpy") else sample

    def describe(self, sample_id: int) -> str:
        """Dataset and item number."""
        return f"{self.name} item {sample_id}"

    def _pair(self, index: int) -> tuple[Any, Any]:
        item = self._dataset[index]
        if isinstance(item, Mapping):
            sample = next((item[key] for key in _SAMPLE_KEYS if key in item), None)
            label = next((item[key] for key in _LABEL_KEYS if key in item), None)
            if sample is not None and label is not None:
                return sample, label
            raise DataError(f"{self.name} item {index} has keys {sorted(item)}: wanted 'image' and 'label'")
        if isinstance(item, tuple | list) and len(item) == 2:
            return item[0], item[1]
        raise DataError(f"{self.name} item {index} is {type(item).__name__}: wanted (sample, label) or a mapping")

    def _labels(self) -> NDArray[np.int64]:
        given = getattr(self._dataset, "targets", getattr(self._dataset, "labels", None))
        if given is None or len(given) != len(self._dataset):
            given = [self._pair(index)[1] for index in range(len(self._dataset))]
        labels = np.array([int(each) for each in given])
        if not np.array_equal(labels, np.asarray(given, dtype=float)):
            raise DataError(f"{self.name}: labels must be class numbers (integers)")
        return labels.astype(np.int64)

    def _digest(self) -> str:
        content = hashlib.sha256(self.labels.tobytes())
        for index in range(min(64, len(self.labels))):
            content.update(sha256(np.asarray(self.read(index)).tobytes()).encode())
        return content.hexdigest()

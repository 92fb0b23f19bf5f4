"""scikit-learn's bundled handwritten digits: 1,797 grey images of 8x8 pixels, values 0..16 brought to 0..255."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillhouse.foundation.errors import DataError
from stillhouse.foundation.files import sha256


class DigitsSource:
    """The digits as a source; nothing is read from the network.

    Raises:
        DataError: scikit-learn, which brings them, is not as it was.
    """

    name = "digits"
    class_names = tuple(str(digit) for digit in range(10))

    def __init__(self) -> None:
        table = np.loadtxt(_file(), delimiter=",")
        self._images: NDArray[np.uint8] = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        self.labels: NDArray[np.int64] = table[:, -1].astype(np.int64)
        self.exact = True
        self.digest = sha256(self._images.tobytes() + self.labels.tobytes())

    def read(self, sample_id: int) -> NDArray[np.uint8]:
        """[8, 8] uint8."""
        image: NDArray[np.uint8] = self._images[sample_id]
        return image

    def describe(self, sample_id: int) -> str:
        """For messages."""
        return f"digit {sample_id}"


def _file() -> Path:
    """The table in scikit-learn's folder. Not by its ``load_digits``: importing that takes a second and a half."""
    found = find_spec("sklearn")
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (path := Path(folder) / "datasets" / "data" / "digits.csv.gz").exists():
            return path
    raise DataError("the digits come with scikit-learn, and are not in it: pip install 'scikit-learn>=1.4'")

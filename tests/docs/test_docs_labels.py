"""The label store's guide tells how exported rows become logits again: its own function does it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commandline import shell

from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.store.label_store import open_store
from stillhouse.store.manifest import Identity

GUIDE = Path(__file__).parents[2] / "docs/guides/label-store.md"
CLASSES, SAMPLES = 7, 20


@pytest.fixture
def logits_of() -> Callable[..., np.ndarray]:
    """The guide's function."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[..., np.ndarray] = names["logits_of"]
    return found


@pytest.mark.parametrize(
    "encoding",
    [Encoding(), Encoding("fp16"), Encoding("top", 1), Encoding("top", 3), Encoding("top", CLASSES)],
    ids=str,
)
def test_exported_rows_become_logits(tmp_path: Path, logits_of: Callable[..., np.ndarray], encoding: Encoding) -> None:
    """Exported rows, taken through the guide's function, are the logits that a student is told."""
    codec, ids, views = Codec(Ask(), encoding, CLASSES, {}), np.arange(SAMPLES), np.zeros(SAMPLES, np.int64)
    logits = 4 * torch.randn(SAMPLES, CLASSES, generator=torch.Generator().manual_seed(0))
    rows = codec.encode(Knowledge(ids, views, logits))
    with open_store(tmp_path / "labels", Identity({}, {}, {}, {}), codec.fields, SAMPLES) as store:
        store.write(ids, views, rows)
    said = shell("store", "export", store.folder, tmp_path / "answers.parquet")
    assert said.code == 0, said.err
    told = codec.decode(rows, ids, views).logits
    assert told is not None
    for row in pq.read_table(tmp_path / "answers.parquet").to_pylist():
        np.testing.assert_allclose(logits_of(row, CLASSES), told[row["sample_id"]].numpy(), rtol=0, atol=1e-6)


def test_help_names_every_column() -> None:
    """The columns that an export may have are explained by the command itself."""
    said = shell("store", "export", "--help").out
    for name in ("sample_id", "view", "logits", "top_index", "top_logit", "top_gap", "rest_gap", "feature:", "scale:"):
        assert name in said, name
    assert "every logit is top_logit - rest_gap" in " ".join(said.split())

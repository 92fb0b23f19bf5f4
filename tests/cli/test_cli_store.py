"""``stillhouse store``: listing, checking, throwing away and exporting label stores."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commandline import Call, refused
from stores import ROW, fill, flip, opened

from stillhouse.foundation.sizes import size_bytes
from stillhouse.store.folder import USED, view_path
from stillhouse.store.label_store import open_store
from stillhouse.store.manifest import MANIFEST, Identity

DAY_S = 86400


@pytest.fixture
def two(call: Call) -> list[Path]:
    """Two stores in ``labels``: 2 views used just now, 3 views used 40 days ago."""
    folders = []
    for number in (2, 3):
        with opened(Path("labels"), samples=1000, flavour=number) as store:
            fill(store, number)
        folders.append(store.folder)
    then = time.time() - 40 * DAY_S
    os.utime(folders[1] / USED, (then, then))
    return folders


def test_ls(call: Call, two: list[Path]) -> None:
    """The list says whose answers, how many, how full, how large and how old; a damaged one says so."""
    (two[1] / MANIFEST).write_text("{")
    said = call("store", "ls")
    assert said.code == 0
    for word in (
        f"{two[0].name}  mlp, 3 classes; 1,000 samples; made 20",
        "arch=mlp",
        "weights=abababab\n",
        "flavour=2",
        "2 views, 100 % of 2,000 rows",
        "used today",
        "40 days ago",
        "is damaged",
    ):
        assert word in said.out, (word, said.out)
    assert "2 in labels" in said.out
    with opened(Path("labels"), samples=1000, flavour=2):
        assert "in use" in call("store", "ls", "labels").out
    Path("none").mkdir()
    assert call("store", "ls", "none").out == "0 in none, 0 B\n"


DENSE = {"logits": True, "encoding": {"layout": 1, "logits": "fp16", "features": "int8"}}


@pytest.mark.parametrize(("fields", "told"), [
    ([("logits", "<f2", [10])], "resnet, 10 classes fp16; 5 samples of 1x8x8; "),
    ([("top_index", "|u1", [4]), ("top_logit", "<f4", []), ("top_gap", "<f2", [3])], "resnet, the 4 largest logits; 5"),
    ([("feature:body.2", "|i1", [2, 3]), ("scale:body.2", "<f4", [2])], "resnet, activations body.2 int8; 5 samples"),
])  # fmt: skip
def test_ls_says_in_short_what_a_store_is_of(call: Call, fields: Any, told: str) -> None:
    """The first words behind a store's name are its teacher, what is kept of an answer, and of which samples."""
    identity = Identity({"arch": "resnet"}, DENSE, {"shape": [1, 8, 8]}, {})
    with open_store(Path("labels"), identity, fields, 5) as store:
        pass
    assert f"{store.folder.name}  {told}" in call("store", "ls").out


def test_verify(call: Call, two: list[Path]) -> None:
    """Whole stores pass; a damaged row makes exit code 1 and is named; one store alone can be checked."""
    said = call("store", "verify")
    assert said.code == 0 and said.out.count(" 0 damaged") == 2
    flip(view_path(two[1], 2), 8 * (7 * ROW + 3))
    said = call("store", "verify", "labels")
    assert said.code == 1 and "2,999 rows valid, 0 absent, 1 damaged" in said.out
    assert "view 2: 1 damaged, samples 7\n" in said.out and "the next run asks for them again" in said.err
    assert call("store", "verify", two[0]).code == 0
    assert call("store", "verify", two[1]).code == 1
    (two[0] / MANIFEST).write_text("{")
    said = call("store", "verify", two[0])
    assert said.code == 1 and said.err.startswith("error: ") and "manifest.json is damaged" in said.err
    assert "damaged rows" not in said.err
    said = call("store", "verify")
    assert said.code == 1 and said.err.startswith("error: ") and "1 damaged" in said.out
    assert "manifest.json is damaged" in said.err and "the next run asks for them again" in said.err


def test_prune(call: Call, two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes unless said what and agreed to; then it goes, by age, name or size."""
    refused(call("store", "prune"), "--older-than-days or --bytes-max")
    said = call("store", "prune", "--older-than-days", 30, "--dry-run")
    assert said.code == 0 and "1 store, " in said.out and "would go" in said.out and two[0].name not in said.out
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert call("store", "prune", "--older-than-days", 30).code == 130
    assert two[1].exists()
    said = call("store", "prune", "--older-than-days", 30, "--yes")
    assert said.code == 0 and "threw away 1 store, " in said.out and not two[1].exists()
    assert "nothing to throw away" in call("store", "prune", "--bytes-max", "1GB", "--yes").out
    with opened(Path("labels"), samples=1000, flavour=2):
        said = call("store", "prune", "labels", two[0].name[:5], "--yes")
        assert said.code == 0 and "in use, stays" in said.out and two[0].exists()
    assert call("store", "prune", "labels", two[0].name[:5], "--yes").code == 0
    assert [each.name for each in Path("labels").iterdir()] == [".lock"]
    with opened(Path("labels"), samples=1000) as store:
        fill(store, 1)
    assert call("store", "prune", store.folder, "--bytes-max", "0", "--yes").code == 0
    assert not store.folder.exists()


def test_prune_by_name_alone(call: Call, two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A store's name, or its beginning, is enough where the stores are in the default folder."""
    said = call("store", "prune", two[0].name[:5], two[1].name, "--dry-run")
    assert said.code == 0 and said.out.startswith("labels/") and "2 stores, " in said.out
    assert call("store", "prune", two[0].name[:5], "--yes").code == 0
    assert not two[0].exists() and two[1].exists()
    two[1].parent.rename("elsewhere")
    monkeypatch.setenv("STILLHOUSE_LABELS", "elsewhere")
    assert call("store", "prune", two[1].name, "--yes").code == 0
    assert not list(Path("elsewhere").glob("[!.]*"))


def test_prune_of_a_folder_that_could_be_a_name(call: Call, two: list[Path]) -> None:
    """A folder stays a folder, whatever its name; a name that fits nothing is told with those that are there."""
    Path("labels").rename("abba")
    refused(call("store", "prune", "abba", "--yes"), "say what shall go")
    assert call("store", "prune", "abba", two[0].name, "--yes").code == 0
    Path("abba").rename("labels")
    refused(call("store", "prune", "abba", "--yes"), "no single store is named 'abba'", two[1].name)


def test_wrong_words(call: Call, two: list[Path]) -> None:
    """What a person got wrong is told in words: folders, names, sizes, stores."""
    refused(call("store", "ls", "lables"), "lables holds no label stores", "store.path")
    refused(call("store", "verify", "lables"), "lables holds no label stores")
    refused(call("store", "prune", "labels", "zz", "--yes"), "no single store is named 'zz'", two[0].name)
    refused(call("store", "prune", "--bytes-max", "many"), "'many' is no size", "500MB")
    refused(call("store", "prune", "--older-than-days", "-1"), "older-than-days")
    refused(call("store", "export", "labels", "x.parquet"), "labels is no label store")
    assert not Path("x.parquet").exists() and two[0].exists() and two[1].exists()


def test_export(call: Call, two: list[Path]) -> None:
    """A store becomes a Parquet file; a place that can't be written to is told."""
    said = call("store", "export", two[0], "x.parquet")
    assert said.code == 0 and said.out == "x.parquet: 2,000 rows\n"
    assert pq.read_table("x.parquet").num_rows == 2000
    said = call("store", "export", two[0], "none/x.parquet")
    assert said.code == 1 and "could not write none/x.parquet" in said.err


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("12", 12), ("500MB", 500_000_000), ("2GiB", 2**31), ("1.5 kb", 1500), ("3t", 3 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes are read in powers of 1000 and 1024."""
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "2 Gigs", "1e3", "0x10"])
def test_no_sizes(text: str) -> None:
    """What is no size is refused with examples."""
    with pytest.raises(ValueError, match="500MB"):
        size_bytes(text)


@pytest.mark.parametrize("module", ["stillhouse.cli.store", "stillhouse.store.shelf", "stillhouse.store.examine"])
def test_no_torch(module: str) -> None:
    """Stores are looked at without torch, and without pyarrow before a file is written."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

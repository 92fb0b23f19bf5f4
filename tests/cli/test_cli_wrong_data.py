"""Wrong data: exit code 2, the file or sample by name, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commandline import Call, changed, nothing_left, refused, rewritten
from PIL import Image


def wild(labels: list[int]) -> Callable[[Path], None]:
    return lambda data: rewritten(data, label=labels)


def cut_off(data: Path) -> None:
    data.write_bytes(data.read_bytes()[:-200])


ROWS = [0, 1, 2] * 40
BAD_DATA: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "truncated": (cut_off, ["tiny.parquet can't be read as Parquet"]),
    "not Parquet": (lambda data: data.write_text("a,b\n") and None, ["tiny.parquet can't be read as Parquet"]),
    "negative": (wild([0, 1, 2, -1] * 30), ["tiny.parquet row 3 has label -1, below 0"]),
    "far out": (wild([*ROWS[:-1], 10**9]), ["tiny.parquet row 119 has label 1000000000"]),
    "empty class": (wild([0, 1, 3] * 40), ["tiny.parquet: class 2 has no samples"]),
    "one class": (wild([0] * 120), ["tiny.parquet has one class only"]),
    "words": (lambda data: rewritten(data, label=["cat"] * 120), ["column 'label' holds string, not class numbers"]),
    "no labels": (lambda data: rewritten(data, label=[*ROWS[:-1], None]), ["row 119 has no label"]),
    "no images": (
        lambda data: rewritten(data, image=[b"?"] * 120),
        ["tiny.parquet: no sample could be read", "row 0"],
    ),
    "too few": (
        lambda data: pq.write_table(pq.read_table(data).slice(0, 18), data),
        ["batch of 16 is more than the 12 training samples"],
    ),
}


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data(verb: str, kind: str, tiny: Path, tiny_data: Path, call: Call) -> None:
    """Data that can't be used are refused by file and row, by check and run alike, and leave no folder."""
    spoil, words = BAD_DATA[kind]
    spoil(tiny_data)
    refused(call(verb, tiny), *words)
    nothing_left(Path.cwd())


def folder_recipe(tiny: Path, root: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for n in range(40):
            Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(root / name / f"{n:02}.png")
    return changed(tiny, data__source={"kind": "folder", "train": str(root)})


@pytest.mark.parametrize(("spoil", "reason"), [("truncated", "truncated"), ("text", "not an image")])
def test_an_unreadable_image_stops_or_is_skipped(spoil: str, reason: str, tiny: Path, call: Call) -> None:
    """An unreadable image stops the run by its path, or is left out and told, as the recipe says."""
    recipe = folder_recipe(tiny, tiny.parent / "pets")
    bad = tiny.parent / "pets" / "dog" / "07.png"
    bad.write_bytes(bad.read_bytes()[:60] if spoil == "truncated" else b"not an image at all")
    refused(call("run", recipe, "--out", "stopped"), str(bad), reason, "data.bad_samples: skip")
    nothing_left(Path.cwd())
    said = call("run", recipe, "--set", "data.bad_samples=skip", "--out", "skipped")
    assert said.code == 0, said
    assert "1 unreadable samples were left out" in said.out
    assert str(bad) in "".join(said.out.split())
    assert '"SamplesSkipped", "count": 1' in Path("skipped/events.jsonl").read_text()


def test_other_sizes_are_refused_and_the_mend_works(tiny: Path, call: Call) -> None:
    """Images of different sizes are refused by path and with the key that helps; with the key the run goes on."""
    recipe = folder_recipe(tiny, tiny.parent / "pets")
    odd = tiny.parent / "pets" / "cat" / "33.png"
    Image.new("L", (9, 5)).save(odd)
    refused(call("run", recipe), str(odd), "5x9 pixels, the first one 8x8", "data.size_px")
    nothing_left(Path.cwd())
    assert call("run", recipe, "--set", "data.size_px=[8, 8]", "--out", "mended").code == 0


def test_an_empty_class_folder(tiny: Path, call: Call) -> None:
    """A class folder without images is refused by path."""
    recipe = folder_recipe(tiny, tiny.parent / "pets")
    (tiny.parent / "pets" / "emu").mkdir()
    refused(call("check", recipe), "emu holds no image")


DATASETS = {
    "raises": (
        "def make():\n    raise ValueError('no such bucket')\n",
        ["mine.py:make raised ValueError: no such bucket (line 2)"],
    ),
    "exits": ("import sys\nsys.exit(0)\ndef make(): ...\n", ["error: loading", "mine.py raised SystemExit"]),
    "exits when called": ("import sys\ndef make():\n    sys.exit(0)\n", ["mine.py:make raised SystemExit"]),
    "does not load": ("import nothing_of_this_name\ndef make(): ...\n", ["mine.py raised ModuleNotFoundError"]),
    "no dataset": ("def make():\n    return 42\n", ["make: a dataset needs __len__ and __getitem__"]),
    "bad items": ("def make():\n    return [1, 2, 3]\n", ["make item 0 is int: wanted (sample, label)"]),
    "words": ("def make():\n    return [([0.5], 'cat')] * 9\n", ["make item 0 has label 'cat'"]),
    "NaN": (
        "def make():\n    return [([0.5, float('nan') if n == 50 else 1.0], n % 2) for n in range(80)]\n",
        ["make item 50: it holds NaN or infinite values"],
    ),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_a_dataset_function_that_fails(kind: str, tiny: Path, call: Call) -> None:
    """A dataset's function that raises or gives nonsense is told with its cause; check doesn't run it."""
    code, words = DATASETS[kind]
    (tiny.parent / "mine.py").write_text(code)
    recipe = changed(tiny, data__source={"kind": "function", "train": f"{tiny.parent / 'mine.py'}:make"})
    assert call("check", recipe).code == 0
    refused(call("run", recipe), *words)
    nothing_left(Path.cwd())


def test_a_function_that_is_not_there(tiny: Path, call: Call) -> None:
    """``file.py:function`` without that function is refused with what the file does define."""
    (tiny.parent / "mine.py").write_text("def made(): ...\n")
    recipe = changed(tiny, data__source={"kind": "function", "train": f"{tiny.parent / 'mine.py'}:make"})
    refused(call("check", recipe), "'data.source.train'", "defines no function 'make' (it defines: made)")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "def make(classes):\n    raise ValueError('no such layer')\n",
            ["student", "ValueError: no such layer (line 2)"],
        ),
        ("def make(classes):\n    return 3\n", ["student", "returned int, not a torch.nn.Module"]),
        ("raise KeyError('gone')\ndef make(): ...\n", ["student", "mine.py raised KeyError: 'gone' (line 1)"]),
        (
            "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(36, 7))\n",
            ["student", "answers for 7 classes, but the data has 3"],
        ),
    ],
)
def test_a_model_function_that_fails(code: str, words: list[str], tiny: Path, call: Call) -> None:
    """A model's function that raises, or makes what does not fit, is told with its cause; check doesn't run it."""
    (tiny.parent / "mine.py").write_text(code)
    recipe = changed(tiny, student__model={"arch": f"{tiny.parent / 'mine.py'}:make"})
    assert call("check", recipe).code == 0
    refused(call("run", recipe), *words)
    nothing_left(Path.cwd())


def test_live_data_in_a_file(tiny: Path, call: Call) -> None:
    """Data of kind ``live`` can't be had from the command line, and the way out is said."""
    refused(call("run", changed(tiny, data__source={"kind": "live"})), "handed over from Python", "stillhouse.distill")
    nothing_left(Path.cwd())

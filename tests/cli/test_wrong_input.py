"""Wrong input on the command line: exit code 2, one clear message, no traceback, nothing half-written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from stillhouse.cli.main import main

SCRIPT = Path(sys.executable).with_name("stillhouse")


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["stillhouse", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def shell(*words: object, limit_bytes: int | None = None, **options: Any) -> Said:
    """The command line as a process of its own; ``limit_bytes``: no file may grow beyond."""
    command = [str(SCRIPT), *map(str, words)]
    if limit_bytes is not None:
        code = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))"
        command = [sys.executable, "-c", f"{code}; os.execv(sys.argv[1], sys.argv[1:])", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    return Said(done.returncode, done.stdout, done.stderr)


def refused(said: Said, *words: str) -> None:
    """Exit code 2, an error message with these words in it, no traceback, no torch noise."""
    text = " ".join(said.err.split())
    assert said.code == 2, said
    assert "Traceback" not in said.out + said.err
    assert len(re.findall("^[eE]rror: ", said.err, re.MULTILINE)) == 1, said.err
    for word in words:
        assert word in text, (word, said.err)


def nothing_left(folder: Path) -> None:
    """No run directory was left behind under ``folder``."""
    left = [str(each) for each in folder.rglob("*") if not (each.name == "runs" and each.is_dir())]
    assert left == []


def changed(recipe: Path, **values: Any) -> Path:
    """The recipe with some values replaced; ``a__b`` is the key ``a.b``."""
    plain = yaml.safe_load(recipe.read_text())
    for key, value in values.items():
        section = plain
        *path, last = key.split("__")
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    recipe.write_text(yaml.safe_dump(plain))
    return recipe


def rewritten(data: Path, image: list[Any] | None = None, label: list[Any] | None = None) -> None:
    """The Parquet file with another column."""
    table = pq.read_table(data)
    columns = {"image": table["image"] if image is None else image, "label": table["label"] if label is None else label}
    pq.write_table(pa.table(columns), data)


# --- the recipe itself: told by check and run alike, before anything is made


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sed: 1", ["tiny.yaml:12", "unknown key 'sed'", "did you mean 'seed'"]),
        ("seed: lots", ["tiny.yaml:12", "'seed'", "not 'lots'"]),
        ("seed: [1", ["tiny.yaml:13", "broken YAML"]),
        ("name: tiny", ["tiny.yaml:12", "'name' is written twice"]),
        (
            "export: !!python/object/apply:os.mkdir [sprung]",
            ["tiny.yaml:12", "python/object/apply:os.mkdir", "refused"],
        ),
        ("control: {seeds: 0, seeds: 1}", ["is written twice"]),
        ("checkpoint: {every_s: .nan}", ["'checkpoint.every_s'", "finite"]),
    ],
)
def test_a_wrong_recipe(verb: str, text: str, words: list[str], tiny: Path, call: Call) -> None:
    """A recipe that can't be read is refused with its line and key, and nothing in it is executed."""
    tiny.write_text(tiny.read_text() + text + "\n")
    refused(call(verb, tiny), *words)
    nothing_left(Path.cwd())


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", ["--set seed", "section.key=value"]),
        ("=3", ["section.key=value"]),
        ("seed=", ["'seed'"]),
        ("seed={", ["--set seed={", "broken YAML"]),
        ("name.x=1", ["'name' is a value, not a section"]),
        ("student.train.epoch=3", ["unknown key 'student.train.epoch'", "did you mean 'epochs'"]),
        ("data.source.train=nowhere.parquet", ["'data.source.train'", "nowhere.parquet does not exist"]),
        ("data.source.train=${NOT_SET_AT_ALL}/x", ["'data.source.train'", "variable NOT_SET_AT_ALL is not set"]),
        ("data.source.image=picture", ["tiny.parquet has no column 'picture' (data.source.image)"]),
        ("data.source.label=class", ["tiny.parquet has no column 'class' (data.source.label)"]),
        ("teacher.model.weights=nowhere.pt", ["'teacher.model.weights'", "nowhere.pt does not exist"]),
        ("teacher.model.arch=mine.py:make", ["'teacher.model.arch'", "mine.py does not exist"]),
        ("compute.device=tpu", ["'compute.device'", "not 'tpu'"]),
        ("data.crop_px=[9, 9]", ["data.crop_px (9, 9) is larger than the images"]),
    ],
)
def test_a_wrong_override(verb: str, override: str, words: list[str], tiny: Path, call: Call) -> None:
    """A ``--set`` that makes no sense is refused by its key, by check and run alike, and leaves no folder."""
    refused(call(verb, tiny, "--set", override), *words)
    nothing_left(Path.cwd())


@pytest.mark.parametrize("verb", ["check", "run", "resume", "evaluate", "export", "report"])
def test_what_is_not_there(verb: str, call: Call) -> None:
    """A missing recipe, or a folder that holds no run, is refused by name; no folder is made."""
    refused(call(verb, "nowhere"), "nowhere")
    nothing_left(Path.cwd())
    Path("empty").mkdir()
    refused(call(verb, "empty"), "empty")
    assert list(Path("empty").iterdir()) == []


@pytest.mark.parametrize("words", [["run"], ["fly"], ["run", "x", "--fast"], ["evaluate", "x", "--split", "train"]])
def test_a_wrong_command_line(words: list[str], call: Call) -> None:
    """An unknown verb, option or choice, or a missing argument, is a usage error."""
    said = call(*words)
    refused(said, "Usage: ")


# --- the data


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


@pytest.mark.parametrize(("spoil", "reason"), [("truncated", "truncated"), ("text", "cannot identify image file")])
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


# --- the models


def saved(path: Path, classes: int = 3, spoil: bool = False) -> Path:
    """Weights of the tiny recipe's teacher."""
    import torch

    from stillhouse.models.build import Interface, build
    from stillhouse.models.weights import weights_bytes
    from stillhouse.recipe.architectures import ModelSection, Normalisation

    section = ModelSection(arch="mlp", options={"hidden": [16]})
    interface = Interface((1, 6, 6), True, classes)
    network = build(section, interface, Normalisation(mean=(0.5,), std=(0.5,)), 0, "teacher")
    if spoil:
        with torch.no_grad():
            next(network.body.parameters())[0] = float("nan")
    path.write_bytes(weights_bytes(network))
    return path


def given(tiny: Path, weights: Path) -> Path:
    return changed(tiny, teacher__model__weights=str(weights), teacher__train=None)


def test_weights_for_other_classes(tiny: Path, tmp_path: Path, call: Call) -> None:
    """Teacher weights for another number of classes are refused with both numbers."""
    recipe = given(tiny, saved(tmp_path / "w.safetensors", classes=10))
    refused(call("run", recipe), "w.safetensors", "trained for 10 classes, the data has 3")
    nothing_left(Path.cwd())


def test_weights_with_nan(tiny: Path, tmp_path: Path, call: Call) -> None:
    """Teacher weights that hold NaN are refused by the tensor's name."""
    recipe = given(tiny, saved(tmp_path / "w.safetensors", spoil=True))
    refused(call("run", recipe), "w.safetensors", "holds NaN or infinite values")
    nothing_left(Path.cwd())


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


def test_weights_that_are_code(tiny: Path, tmp_path: Path, call: Call) -> None:
    """Pickled objects instead of weights are refused, and nothing in them runs."""
    import torch

    torch.save({"weight": Trap()}, tmp_path / "w.pt")
    refused(call("run", given(tiny, tmp_path / "w.pt")), "w.pt holds Python objects")
    nothing_left(Path.cwd())


def test_weights_cut_short(tiny: Path, tmp_path: Path, call: Call) -> None:
    """A truncated file of weights is refused by name."""
    path = saved(tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:-50])
    refused(call("run", given(tiny, path)), "w.safetensors")
    nothing_left(Path.cwd())


def test_a_student_larger_than_its_teacher_is_warned_about(tiny: Path, call: Call) -> None:
    """A student that is not smaller than its teacher is trained all the same, with a warning."""
    said = call("run", tiny, "--set", "student.model.options.hidden=[64]")
    assert said.code == 0, said
    assert "warning: the student (" in " ".join(said.out.split())
    assert "is not smaller than its teacher" in " ".join(said.out.split())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("teacher.precision=fp16", ["teacher.precision: fp16 needs a CUDA GPU"]),
        ("student.train.precision=fp16", ["student.train.precision: fp16 needs a CUDA GPU"]),
        ("compute.device=cuda:99", ["compute.device: cuda:99 is not available here"]),
        ("student.model.channels=3", []),
        ("objective.features=[{teacher: nope, student: nope}]", ["nope"]),
        ("student.model.arch=resnet", ["student.model", "options of resnet"]),
        ("data.augment.pad_px=1", []),
    ],
)
def test_what_only_the_run_can_see(override: str, words: list[str], tiny: Path, call: Call) -> None:
    """What does not fit is told before any training, and the folder is free again; what fits runs."""
    said = call("run", tiny, "--set", override, "--out", "run")
    if words:
        refused(said, *words)
        nothing_left(Path.cwd())
    else:
        assert said.code == 0, said


# --- the folder


def test_a_folder_that_is_taken(tiny: Path, call: Call) -> None:
    """A folder with a run, with other things, or that is a file is refused and not touched, by check and run."""
    Path("mine").mkdir()
    Path("mine/.x.part").write_text("precious")
    Path("mine/notes.txt").write_text("precious")
    Path("file").write_text("precious")
    Path("old").mkdir()
    Path("old/recipe.yaml").write_text("precious")
    for verb in ("check", "run"):
        refused(call(verb, tiny, "--out", "mine"), "mine is not empty (notes.txt)", "--out")
        refused(call(verb, tiny, "--out", "file"), "file is a file")
        refused(call(verb, tiny, "--out", "old"), "old already holds a run", "stillhouse resume old")
    found = sorted(str(each) for each in Path().rglob("*") if each.is_file())
    assert found == ["file", "mine/.x.part", "mine/notes.txt", "old/recipe.yaml"]
    assert {Path(each).read_text() for each in found} == {"precious"}


def test_a_folder_that_cannot_be_made(tiny: Path, call: Call) -> None:
    """An output folder below a file is refused in words."""
    Path("file").write_text("x")
    refused(call("run", tiny, "--out", "file/deep"), "file/deep", "--out")


def test_an_empty_folder_is_given_back_as_it_was(tiny: Path, call: Call) -> None:
    """A folder that was there and empty serves, and stays there empty when the input was wrong."""
    Path("mine").mkdir()
    refused(call("run", tiny, "--out", "mine", "--set", "teacher.precision=fp16"), "fp16")
    assert list(Path("mine").iterdir()) == []
    assert call("run", tiny, "--out", "mine").code == 0


def test_a_folder_in_use(tiny: Path, call: Call) -> None:
    """A run that another process works on is refused by that process's number."""
    assert call("run", tiny, "--out", "run").code == 0
    code = "import sys, time\nfrom pathlib import Path\nfrom stillhouse.foundation.files import folder_lock\n"
    code += "with folder_lock(Path('run')):\n    print('held', flush=True)\n    time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            refused(call("resume", "run"), f"run is in use by process {holder.pid}")
        finally:
            holder.kill()


def test_a_recipe_changed_under_a_resume(tiny: Path, call: Call) -> None:
    """A run whose recipe or data were changed is refused with what differs, and goes on when that is undone."""
    assert call("run", tiny, "--out", "run").code == 0
    Path("run/result.json").unlink()
    recipe = Path("run/recipe.yaml")
    before = recipe.read_text()
    recipe.write_text(before.replace("seed: 0", "seed: 5").replace("temperature: 4.0", "temperature: 2.0"))
    refused(call("resume", "run"), "seed: 0 -> 5", "objective.kd.temperature: 4.0 -> 2.0")
    recipe.write_text(before + "sed: 1\n")
    refused(call("resume", "run"), "run/recipe.yaml", "unknown key 'sed'")
    recipe.write_text(before)
    data = tiny.parent / "tiny.parquet"
    whole = data.read_bytes()
    rewritten(data, label=[1, 0, 2] * 40)
    refused(call("resume", "run"), "data: ")
    data.unlink()
    refused(call("resume", "run"), "tiny.parquet does not exist")
    data.write_bytes(whole)
    assert call("resume", "run").code == 0
    Path("run/run.json").write_text("{")
    Path("run/result.json").unlink()
    refused(call("resume", "run"), "run/run.json is not valid JSON")


def test_a_run_that_is_not_finished(tiny: Path, call: Call) -> None:
    """Evaluating or exporting an unfinished run says how to finish it."""
    assert call("run", tiny, "--out", "run").code == 0
    Path("run/result.json").unlink()
    for verb in ("evaluate", "export"):
        refused(call(verb, "run"), "run has not finished: 'stillhouse resume run' first")


# --- as processes of their own: exit codes, and what is not imported


def test_exit_code_0_and_2_of_processes(tiny: Path, tmp_path: Path) -> None:
    """A check that is fine ends with 0; a wrong key ends with 2, one line on stderr, nothing on stdout."""
    fine = shell("check", tiny, cwd=tmp_path)
    assert (fine.code, fine.err) == (0, "")
    assert "grey images of 6x6, 3 classes" in fine.out
    wrong = shell("run", tiny, "--set", "sed=1", cwd=tmp_path)
    refused(wrong, "unknown key 'sed'")
    assert (wrong.out, len(wrong.err.splitlines())) == ("", 1)
    assert not (tmp_path / "runs" / "tiny").exists()


def test_exit_code_1_when_the_disk_is_full(tiny: Path, tmp_path: Path) -> None:
    """A disk that refuses the first file ends with 1, in words, and leaves no folder."""
    said = shell("run", tiny, "--out", "run", limit_bytes=100, cwd=tmp_path)
    assert said.code == 1, said
    assert "Traceback" not in said.err
    assert "error: could not write run/recipe.yaml" in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_exit_code_130_after_ctrl_c(tiny: Path, tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a word, after a checkpoint from which the run goes on."""
    command = [SCRIPT, "run", tiny, "--out", "run", "--set", "teacher.train.epochs=100000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        events = tmp_path / "run" / "events.jsonl"
        for _ in range(600):
            if events.exists() and '"Progress"' in events.read_text():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list((tmp_path / "run" / "checkpoints" / "teacher").glob("*.ckpt"))


NO_TORCH = """
import sys
import stillhouse
from stillhouse.cli.main import main
verbs = ["run", "resume", "check", "schema", "evaluate", "export", "report"]
for words in (["--help"], ["--version"], *([verb, "--help"] for verb in verbs), ["schema"], ["check", sys.argv[-1]]):
    sys.argv = ["stillhouse", *words]
    main()
    assert "torch" not in sys.modules, words
"""


def test_help_and_check_do_without_torch(tiny: Path) -> None:
    """``import stillhouse``, every verb's help, ``schema`` and ``check`` never import torch."""
    code = NO_TORCH.replace("sys.argv[-1]", repr(str(tiny)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "train, " in done.stdout
    assert done.stdout.count("Usage: ") == 8


def test_check_is_quick(tiny: Path) -> None:
    """``check`` of a small data set is answered within a few seconds, process start and all."""
    started = time.monotonic()
    assert shell("check", tiny).code == 0
    assert time.monotonic() - started < 10  # half a second on an idle machine

"""Wrong models and weights: exit code 2, one clear message, nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from commandline import Call, changed, nothing_left, refused


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
    refused(call("run", recipe), "w.safetensors", "trained for 10 classes, here they are 3")
    nothing_left(Path.cwd())


def test_chaos_of_what_can_not_run(tiny: Path, tmp_path: Path, call: Call) -> None:
    """A recipe that its undisturbed run refuses is the person's to mend: the same words, the same exit code."""
    said = call("chaos", given(tiny, saved(tmp_path / "w.safetensors", classes=10)))
    assert said.code == 2 and "trained for 10 classes, here they are 3" in said.err and "Traceback" not in said.err


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
        ("teacher.engine.precision=fp16", ["teacher.engine.precision: fp16 needs a CUDA GPU"]),
        ("student.train.engine.precision=fp16", ["student.train.engine.precision: fp16 needs a CUDA GPU"]),
        ("compute.device=cuda:99", ["compute.device: cuda:99 is not available here"]),
        ("fleet={workers: 1, device: 'cuda:99'}", ["fleet.device: cuda:99 is not available here"]),
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


def test_a_cluster_that_is_not_there(tiny: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray cluster that nobody answers for is told before any training, and the folder is free again."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    said = call("run", tiny, "--set", "fleet={workers: 1, backend: ray}", "--out", "run")
    refused(said, "127.0.0.1:1", "RAY_ADDRESS")
    nothing_left(Path.cwd())


def test_what_then_is_promised_is_kept(tiny: Path, call: Call) -> None:
    """Where the recipe says what a student does without teachers, a device that none of them has is no mistake."""
    fleet = "fleet={workers: 1, device: 'cuda:99', without_teachers: hard_labels}"
    said = call("run", tiny, "--set", fleet, "--out", "run")
    assert said.code == 0, said
    assert "no teacher is left" in " ".join(said.err.split() + said.out.split())

"""ONNX: exported, and proved to answer like the checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from stillhouse.data.batch import Batch
from stillhouse.export.onnx import check_onnx_installed, export_onnx, verify_onnx
from stillhouse.foundation.errors import ModelError, StillhouseError
from stillhouse.models.build import Interface, build
from stillhouse.models.network import Network
from stillhouse.recipe.architectures import ModelSection, Normalisation

DIGITS = Interface((1, 8, 8), True, 10)
FLAT = Interface((12,), False, 4)


def network(interface: Interface = DIGITS, seed: int = 1) -> Network:
    section = (
        ModelSection(arch="resnet", options={"width": 4, "blocks": [1, 1]})
        if interface.image
        else ModelSection(arch="mlp", options={"hidden": [8]})
    )
    made = build(section, interface, Normalisation(mean=(0.3,), std=(0.4,)), seed, "student")
    with torch.no_grad():
        for buffer in made.body.buffers():
            if buffer.is_floating_point():
                buffer.add_(0.1)
    return made


def batches(interface: Interface = DIGITS, sizes: tuple[int, ...] = (7, 1, 3)) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        shape, keys = (size, *interface.shape), np.arange(size)
        inputs = (
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            if interface.image
            else torch.randn(shape, generator=generator)
        )
        yield Batch(keys, keys, inputs, torch.zeros(size, dtype=torch.int64))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of ``network()``."""
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    export_onnx(network(), DIGITS, path)
    return path


def test_export_answers_like_the_network(exported: Path) -> None:
    """On raw images in batches of any size the file's logits are the network's; the figures are told."""
    found = verify_onnx(exported, network(), batches())
    assert found["file"] == "student.onnx" and found["bytes"] == exported.stat().st_size
    assert found["agreement"] == 1.0 and found["samples"] == 11
    assert 0 <= found["largest_difference"] < 1e-4 and found["latency_ms"] > 0


def test_export_stands_alone(exported: Path) -> None:
    """One file with the weights inside, taking uint8 'input' and answering 'logits', any number of rows."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.read_bytes(), providers=["CPUExecutionProvider"])
    (takes,), (answers,) = session.get_inputs(), session.get_outputs()
    assert (takes.name, takes.type, takes.shape[1:]) == ("input", "tensor(uint8)", [1, 8, 8])
    assert answers.name == "logits" and not isinstance(takes.shape[0], int)
    assert [path.name for path in exported.parent.iterdir()] == ["student.onnx"]


def test_verify_measures_a_network_in_training_mode_too(exported: Path) -> None:
    """A network left in training mode is compared in evaluation mode, and left as it was."""
    trained = network().train()
    verify_onnx(exported, trained, batches())
    assert trained.training
    before = network().state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())


def test_another_network_is_noticed(exported: Path) -> None:
    """A file with other weights than the checkpoint's is refused with the difference."""
    with pytest.raises(StillhouseError, match="answers differently from the checkpoint"):
        verify_onnx(exported, network(seed=2), batches())


def test_slightly_changed_weights_are_noticed(exported: Path) -> None:
    """A change of one percent of the classifier's weights is enough to be refused."""
    changed = network()
    with torch.no_grad():
        changed.body.get_submodule("head").weight.mul_(1.01)  # type: ignore[union-attr, operator]
    with pytest.raises(StillhouseError, match="answers differently"):
        verify_onnx(exported, changed, batches())


def test_nan_is_noticed(exported: Path) -> None:
    """Logits that are NaN on one side differ, in whichever batch they come."""
    whole = network().eval()

    class Late(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = whole(inputs)
            return logits * float("nan") if len(inputs) == 1 else logits

    broken = Network(network().preprocess, torch.nn.Identity())
    broken.forward = Late().forward  # type: ignore[method-assign]
    with pytest.raises(StillhouseError, match="answers differently"):
        verify_onnx(exported, broken.eval(), batches())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_damaged_file_is_told(exported: Path, tmp_path: Path, share: float) -> None:
    """A file cut short is an error that names it, whatever onnxruntime raises."""
    path = tmp_path / "cut.onnx"
    path.write_bytes(exported.read_bytes()[: int(share * exported.stat().st_size)])
    with pytest.raises(StillhouseError, match=r"cut\.onnx"):
        verify_onnx(path, network(), batches())


@pytest.mark.slow
def test_float_samples_are_exported(tmp_path: Path) -> None:
    """A student of float vectors is exported too, with its normalisation inside."""
    path = tmp_path / "flat.onnx"
    export_onnx(network(FLAT), FLAT, path)
    assert verify_onnx(path, network(FLAT), batches(FLAT))["agreement"] == 1.0


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str) -> None:
    """Without one of the extra's packages the error says which, and the line to paste."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError, match=rf"needs {missing}: pip install 'stillhouse\[onnx\]'"):
        check_onnx_installed()
    with pytest.raises(ModelError, match="pip install"):
        export_onnx(network(), DIGITS, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_model_that_cannot_be_traced_is_told(tmp_path: Path) -> None:
    """What the exporter can't trace is a ModelError with its reason, and no file."""

    class Branches(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.flatten(1)[:, :10] * (1 if float(inputs.sum()) > 0 else 2)

    awkward = Network(network().preprocess, Branches())
    with pytest.raises(ModelError, match="can't be exported to ONNX"):
        export_onnx(awkward, DIGITS, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())

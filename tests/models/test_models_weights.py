"""Weights: files good and bad, fitting them in, digests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from stillhouse.foundation.errors import ModelError
from stillhouse.foundation.files import sha256
from stillhouse.models.build import Interface, build, wrap
from stillhouse.models.network import Network
from stillhouse.models.weights import load_into, read_weights, weights_bytes, weights_digest
from stillhouse.recipe.architectures import ModelSection, Normalisation

INTERFACE = Interface((1, 8, 8), True, 10)
STATISTICS = Normalisation(mean=(0.5,), std=(0.25,))
OPTIONS = {"width": 4, "blocks": [1, 1]}


def made(seed: int = 1, classes: int = 10, **section: object) -> Network:
    model = ModelSection.model_validate({"arch": "resnet", "options": OPTIONS, **section})
    return build(model, Interface((1, 8, 8), True, classes), STATISTICS, seed, "student")


def save_safetensors(network: Network, path: Path) -> None:
    path.write_bytes(weights_bytes(network))


def save_body(network: Network, path: Path) -> None:
    torch.save(network.body.state_dict(), path)


def save_wrapped(network: Network, path: Path) -> None:
    state = {f"module._orig_mod.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "arch": "resnet"}, path)


def save_model_key(network: Network, path: Path) -> None:
    torch.save({"model": network.state_dict()}, path)


@pytest.mark.parametrize(
    ("save", "name"),
    [(save_safetensors, "w.safetensors"), (save_body, "w.pt"), (save_wrapped, "w.pth"), (save_model_key, "w.bin")],
)
def test_weights_round_trip(save: Callable[[Network, Path], None], name: str, tmp_path: Path) -> None:
    """Weights written in any of the usual ways come back bit by bit."""
    network = made(seed=1)
    save(network, tmp_path / name)
    assert weights_digest(made(seed=2, weights=str(tmp_path / name))) == weights_digest(network)


def test_stored_normalisation_is_taken_over(tmp_path: Path) -> None:
    """A full network's weights bring their normalisation, unless the recipe gives one."""
    own = {"mean": [0.25], "std": [0.125]}
    save_safetensors(made(normalise=own), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    assert made(weights=weights).preprocess.mean.item() == 0.25
    assert made(weights=weights, normalise={"mean": [0.75], "std": [1.0]}).preprocess.mean.item() == 0.75


class Trap:
    """A pickle of this makes a folder when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickle_with_code_is_refused(tmp_path: Path) -> None:
    """A pickle that would run code is refused with a way out, and its code does not run."""
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(ModelError, match=r"trap.pt holds Python objects \(.*mkdir\).*save_file"):
        read_weights(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "trap.pt", weights_only=False)
    assert (tmp_path / "sprung").exists(), "the trap must be a real one"


def test_whole_module_is_refused(tmp_path: Path) -> None:
    """A pickled module instead of a state dict is refused by the name of its class."""
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ModelError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_weights(tmp_path / "module.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(name: str, kept: float, tmp_path: Path) -> None:
    """A file cut short anywhere is refused by name."""
    (save_safetensors if name.endswith("safetensors") else save_body)(made(), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ModelError, match=rf"{name}.*copy or download it again"):
        read_weights(tmp_path / name)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    """A missing file, a folder, a text, a bare tensor and a dict with other values are refused with the reason."""
    (tmp_path / "text.pt").write_text("hello world\n")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    torch.save({"weight": torch.ones(3), "epoch": 3}, tmp_path / "mixed.pt")
    stories = {
        "missing.pt": "is not a file",
        ".": "is not a file",
        "text.pt": "not written by torch.save",
        "tensor.pt": "holds no state dict",
        "mixed.pt": "'epoch' is int, not a tensor",
    }
    for name, story in stories.items():
        with pytest.raises(ModelError, match=story):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    """One NaN or infinite value is found, named with its file, and nothing is copied."""
    network = made()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state["body.stage2.0.first.0.weight"][0, 0, 0, 0] = value
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    digest = weights_digest(network)
    with pytest.raises(ModelError, match=r"w\.safetensors: 'body\.stage2\.0\.first\.0\.weight' holds NaN or infinite"):
        load_into(network, read_weights(tmp_path / "w.safetensors"), str(tmp_path / "w.safetensors"))
    assert weights_digest(network) == digest
    with pytest.raises(ModelError, match=r"student model resnet: .*w\.safetensors: 'stage2\.0\.first\.0\.weight'"):
        made(weights=str(tmp_path / "w.safetensors"))


def test_other_names_are_told() -> None:
    """Missing and unexpected tensors are named, the first few of them."""
    state = {f"blocks.{name}": value for name, value in made().body.state_dict().items()}
    with pytest.raises(ModelError, match=r"file\.pt does not fit.*lacks stem\.0\.0\.weight.*more and has blocks\.stem"):
        load_into(made(), state, "file.pt")


def test_other_classes_are_told() -> None:
    """Weights that differ in the classifier alone get a hint on class counts, other shapes do not."""
    with pytest.raises(ModelError, match=r"head\.weight is \[7, 8\].*trained for 7 classes, here they are 10"):
        load_into(made(), made(classes=7).body.state_dict(), "file.pt")
    wider = made(options={"width": 8, "blocks": [1, 1]})
    with pytest.raises(ModelError, match=r"does not fit.*arch and options must be"):
        load_into(made(), wider.state_dict(), "file.pt")


def test_digest_is_of_the_values_alone() -> None:
    """Equal weights have equal digests in any memory format; one changed bit changes the digest."""
    network, twin = made(), made()
    assert sha256(weights_bytes(network)) == weights_digest(network) == weights_digest(twin)
    twin.to(memory_format=torch.channels_last)
    assert weights_digest(twin) == weights_digest(network)
    with torch.no_grad():
        twin.body.get_submodule("head").bias[0] = 1e-30
    assert weights_digest(twin) != weights_digest(network)


def test_tied_weights_are_written() -> None:
    """Tied tensors, which safetensors refuses, are written and read back."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10))
    body[2].weight = body[1].weight
    network = wrap(body, INTERFACE, STATISTICS)
    state = safetensors.torch.load(weights_bytes(network))
    assert torch.equal(state["body.1.weight"], state["body.2.weight"])
    load_into(network, state, "bytes")

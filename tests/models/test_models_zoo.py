"""The zoo and the way from a recipe section to a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stillhouse.foundation.errors import ModelError
from stillhouse.models.build import Interface, build, check_answer, wrap
from stillhouse.models.network import Network
from stillhouse.models.weights import weights_digest
from stillhouse.recipe.architectures import ZOO_OPTIONS, ModelSection, Normalisation

GREY = Normalisation(mean=(0.5,), std=(0.25,))
RGB = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25))


def made(arch: str, interface: Interface, seed: int = 1, **section: Any) -> Network:
    statistics = RGB if interface.shape[0] == 3 else GREY
    return build(ModelSection(arch=arch, **section), interface, statistics, seed, "student")


@pytest.mark.parametrize("arch", ZOO_OPTIONS)
@pytest.mark.parametrize("side_px", [8, 16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_zoo_answers_every_size(arch: str, side_px: int, channels: int) -> None:
    """Every zoo model answers and trains on grey and RGB images of 8x8, 16x16 and 32x32."""
    network = made(arch, Interface((channels, side_px, side_px), True, 10))
    images = torch.randint(0, 256, (4, channels, side_px, side_px), dtype=torch.uint8)
    logits = network(images)
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    # A zeroed branch stops the gradient of what is inside it, so ask only where the signal must pass.
    assert network.body.get_submodule("head").weight.grad.abs().sum() > 0


@pytest.mark.parametrize("arch", ZOO_OPTIONS)
def test_seed_decides_the_weights(arch: str) -> None:
    """The same seed gives the same weights, another seed others, and the global random state is left alone."""
    interface = Interface((1, 8, 8), True, 10)
    before = torch.get_rng_state()
    first, same, other = (weights_digest(made(arch, interface, seed)) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == same != other


@pytest.mark.parametrize("arch", ["resnet", "mobilenet"])
def test_too_many_stages_are_refused(arch: str) -> None:
    """A network that would halve its input below one pixel is refused with the number of stages that fit."""
    with pytest.raises(ModelError, match=r"5 stages.*8x8 pixels allow 4 stages"):
        made(arch, Interface((1, 8, 8), True, 10), options={"width": 2, "blocks": [1] * 5})


def test_vgg_stops_pooling_at_one_pixel() -> None:
    """A VGG with more stages than halvings still answers."""
    network = made("vgg", Interface((1, 4, 6), True, 3), options={"width": 2, "blocks": [1] * 5})
    assert network(torch.zeros(2, 1, 4, 6, dtype=torch.uint8)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 4), (2, 2, 3, 4)])
def test_mlp_takes_float_data_of_any_shape(shape: tuple[int, ...]) -> None:
    """An MLP takes float samples of any rank."""
    network = build(ModelSection(arch="mlp"), Interface(shape, False, 3), GREY, 1, "student")
    assert network(torch.randn(6, *shape)).shape == (6, 3)


def test_convolutions_refuse_flat_data() -> None:
    """A convolutional network on samples that are no images is refused with a way out."""
    with pytest.raises(ModelError, match=r"student model resnet.*shape \[5\].*mlp"):
        build(ModelSection(arch="resnet"), Interface((5,), False, 3), GREY, 1, "student")


def test_residual_blocks_start_as_identity() -> None:
    """At the start a residual block without projection passes what it gets."""
    network = made("resnet", Interface((1, 8, 8), True, 10)).eval()
    values = torch.rand(2, 16, 8, 8)
    assert torch.equal(network.body.get_submodule("stage1")(values), values)


def write(folder: Path, text: str) -> str:
    file = folder / "mine.py"
    file.write_text("import torch\nfrom torch import nn\n" + text)
    return f"{file}:make"


def test_user_function_gets_what_it_names(tmp_path: Path) -> None:
    """A person's function gets its options and those of classes, channels and size_px that it asks for."""
    text = """
def make(width, classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, width), nn.Linear(width, classes))
"""
    network = made(write(tmp_path, text), Interface((1, 8, 8), True, 7), options={"width": 5}, channels=3)
    assert [tuple(p.shape) for p in network.body.parameters()] == [(5, 192), (5,), (7, 5), (7,)]


@pytest.mark.parametrize(
    ("text", "story"),
    [
        ("def make(): return 3", "returned int, not a torch.nn.Module"),
        ("def make(): raise KeyError('width')", r"KeyError: 'width' \(line 3\)"),
        ("import no_such_thing\ndef make(): ...", r"No module named 'no_such_thing' \(line 3\)"),
        ("def make(width): ...", "missing 1 required positional argument: 'width'"),
        ("def make(): return nn.Linear(3, 3)", r"shape \[1, 8, 8\] made its forward raise RuntimeError: mat1 and mat2"),
        ("class make(nn.Flatten):\n def forward(self, x): return x, x", "answers tuple; the data has 7 classes"),
        ("class make(nn.Flatten):\n def forward(self, x): return x.argmax().reshape(1, 1)", "1 classes.*has 7"),
        ("class make(nn.Flatten):\n def forward(self, x): return x", r"float32 of shape \[1, 1, 8, 8\]"),
    ],
)
def test_user_function_that_fails_says_why(tmp_path: Path, text: str, story: str) -> None:
    """Whatever goes wrong in a person's function or forward becomes one ModelError that names role, file and reason."""
    with pytest.raises(ModelError, match=rf"student model .*mine.py:make: .*{story}"):
        made(write(tmp_path, text), Interface((1, 8, 8), True, 7))


def test_lazy_modules_are_seeded(tmp_path: Path) -> None:
    """A module that finds its shape in its first pass gets the same weights from the same seed too."""
    reference = write(tmp_path, "def make(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(7))")
    digests = {weights_digest(made(reference, Interface((1, 8, 8), True, 7))) for _ in range(2)}
    assert len(digests) == 1


def test_class_mismatch_names_both_counts() -> None:
    """A model for other classes than the data's is refused with both counts and the role."""
    network = wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), Interface((1, 8, 8), True, 10), GREY)
    with pytest.raises(ModelError, match="teacher model Sequential: it answers for 5 classes, but the data has 10"):
        check_answer(network, Interface((1, 8, 8), True, 10), "teacher")


def test_check_leaves_the_model_as_it_was() -> None:
    """Checking a model keeps each module's mode, its running statistics and the random state."""
    body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 10))
    body[1].eval()
    interface = Interface((1, 8, 8), True, 10)
    network = wrap(body, interface, GREY)
    digest, random_state = weights_digest(network), torch.get_rng_state()
    check_answer(network, interface, "student")
    assert [module.training for module in body] == [True, False, True, True]
    assert weights_digest(network) == digest
    assert torch.equal(torch.get_rng_state(), random_state)


def test_live_model_has_no_recipe() -> None:
    """A model handed over from Python can't be built from its recipe, and the error says who can."""
    with pytest.raises(ModelError, match=r"stillhouse\.distill"):
        made("live", Interface((1, 8, 8), True, 10))

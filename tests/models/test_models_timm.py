"""Models of timm, where it is installed."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from stillhouse.foundation.errors import ModelError
from stillhouse.models.build import Interface, build
from stillhouse.models.network import Network
from stillhouse.recipe.architectures import ModelSection, Normalisation

RGB = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25))

with_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


def made(name: str, channels: int = 3, **section: object) -> Network:
    statistics = RGB if channels == 3 else Normalisation(mean=(0.5,), std=(0.25,))
    model = ModelSection.model_validate({"arch": f"timm:{name}", **section})
    return build(model, Interface((channels, 32, 32), True, 7), statistics, 1, "teacher")


@with_timm
def test_timm_model_brings_its_normalisation() -> None:
    """A timm model answers for the data's classes, in the size asked for, normalised as timm says."""
    network = made("mobilenetv3_small_050", size_px=(64, 64)).eval()
    assert torch.allclose(network.preprocess.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert network(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 7)


@with_timm
def test_timm_model_for_grey_images() -> None:
    """A timm model on grey data has one input channel and one mean and deviation."""
    network = made("mobilenetv3_small_050", channels=1).eval()
    assert network.preprocess.mean.shape == (1, 1, 1, 1)
    assert network.body.get_submodule("conv_stem").weight.shape[1] == 1


@with_timm
def test_own_normalisation_beats_timm() -> None:
    """What the recipe says about normalisation wins over what timm says."""
    network = made("mobilenetv3_small_050", normalise={"mean": [0.5], "std": [0.5]})
    assert network.preprocess.mean.flatten().tolist() == [0.5] * 3


@with_timm
@pytest.mark.parametrize(
    ("name", "section", "story"),
    [
        ("resnet_18", {}, "did you mean 'resnet18'"),
        ("qqqqqq", {}, "timm.list_models"),
        ("resnet18", {"options": {"no_such_option": 1}}, "no_such_option.*mend its options"),
        ("vit_tiny_patch16_224", {}, "AssertionError: Input height.*size_px"),
        ("mobilenetv3_small_050", {"options": {"num_classes": 5}}, "answers for 5 classes, but the data has 7"),
    ],
)
def test_timm_errors_name_the_mend(name: str, section: dict[str, object], story: str) -> None:
    """A misspelt model, a wrong option, a wrong size or class count becomes a ModelError that says what to do."""
    with pytest.raises(ModelError, match=f"teacher model timm:{name}: .*{story}"):
        made(name, **section)


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without timm the error tells what to install."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'stillhouse\[vision\]'"):
        made("resnet18")

"""From a recipe's model section to a network that fits the data, or an error that says how to mend it.

Building is a pure function of the section, the interface and the seed: same seed, same weights, and the
process's random state is left as it was. Models are made on the CPU. The last step asks for one answer, so that a
wrong number of classes is told now and not after an hour of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from stillhouse.foundation.errors import ModelError
from stillhouse.models.from_function import build_from_function
from stillhouse.models.from_timm import build_timm, timm_normalisation
from stillhouse.models.graphs import network as random_graph
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network, Preprocess, evaluating, match_channels
from stillhouse.models.weights import load_into, read_weights, split_network
from stillhouse.models.zoo import mlp, mobilenet, resnet, vgg
from stillhouse.recipe.architectures import ZOO_OPTIONS, ModelSection, Normalisation

__all__ = ["Interface", "build", "check_answer", "wrap"]

_ZOO: dict[str, Callable[[Any, int, tuple[int, int], int], nn.Module]] = {
    "resnet": resnet.build,
    "vgg": vgg.build,
    "mobilenet": mobilenet.build,
    "mlp": mlp.build,
    "random_graph": random_graph.build,
}


def build(section: ModelSection, interface: Interface, statistics: Normalisation, seed: int, role: str) -> Network:
    """A network on the CPU with the weights that the section names, else with initial ones.

    ``normalise: auto`` takes what a full network's weights hold, else what timm says of an image model, else
    ``statistics``, those of the training split in the data's channels.

    Args:
        seed: of the initial weights.
        role: "teacher" or "student", for messages.

    Raises:
        ModelError: names the role, the architecture and the mend.
    """
    try:
        channels, size_px = _wanted(section, interface)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            # Not torch.manual_seed: it would seed every GPU of the process too.
            torch.default_generator.manual_seed(seed)
            body = _body(section, interface, channels, size_px)
            state, stored = split_network(read_weights(section.weights)) if section.weights else ({}, None)
            normalisation = _normalisation(section, interface, body, stored, statistics)
            network = wrap(body, interface, normalisation, section.size_px, section.channels)
            # Before the weights: this also gives lazy modules their shapes, under the seed.
            _check_answer(network, interface)
            if section.weights:
                load_into(network, state, section.weights)
    except ModelError as error:
        raise ModelError(f"{role} model {section.arch}: {error}") from error
    return network


def wrap(
    body: nn.Module,
    interface: Interface,
    normalisation: Normalisation,
    size_px: tuple[int, int] | None = None,
    channels: int | None = None,
) -> Network:
    """Put a network's own preprocessing before any module, on the module's device.

    Args:
        body: [B, channels, *size_px] (float) -> logits [B, classes]; for data other than images [B, *shape].
        normalisation: of the body's channels or of the data's; one value serves all.
        size_px, channels: what the body wants of images; default: those of the data.

    Raises:
        ModelError: a size or channels that can't be had from this data.
    """
    shape = interface.shape
    if interface.image:
        wanted = channels or shape[0]
        if {wanted, shape[0]} not in ({1, 3}, {shape[0]}):
            raise ModelError(f"images of {shape[0]} channels can't become {wanted}: only grey (1) and RGB (3) can")
        preprocess = Preprocess(match_channels(normalisation, wanted), 3, wanted, size_px or (shape[1], shape[2]))
    else:
        if size_px is not None or channels is not None:
            raise ModelError(f"size_px and channels are for images, but the data has float samples of shape {shape}")
        if len(normalisation.mean) > 1 or len(normalisation.std) > 1:
            normalisation = match_channels(normalisation, shape[0] if shape else 1)
        preprocess = Preprocess(normalisation, len(shape), None, None)
    parameter = next(body.parameters(), None)
    return Network(preprocess.to(parameter.device) if parameter is not None else preprocess, body)


def check_answer(network: Network, interface: Interface, role: str) -> None:
    """Ask for the answer to one zero sample and check its form; random state and modes stay as they were.

    Raises:
        ModelError: the model raised, or did not answer a float tensor [1, classes].
    """
    try:
        with torch.random.fork_rng(devices=[]):
            _check_answer(network, interface)
    except ModelError as error:
        raise ModelError(f"{role} model {type(network.body).__name__}: {error}") from error


def _wanted(section: ModelSection, interface: Interface) -> tuple[int, tuple[int, int]]:
    """Channels and size that the body will see; other than image-shaped data counts as a flat or one-channel image."""
    shape = interface.shape
    if section.arch in ZOO_OPTIONS and section.arch != "mlp" and len(shape) != 3:
        raise ModelError(
            f"it needs samples [channels, height, width], but the data's have shape {list(shape)}: "
            "take mlp, or your own file.py:function"
        )
    if interface.image:
        return section.channels or shape[0], section.size_px or (shape[1], shape[2])
    if len(shape) < 2:
        return math.prod(shape), (1, 1)
    return math.prod(shape[:-2]), (shape[-2], shape[-1])


def _body(section: ModelSection, interface: Interface, channels: int, size_px: tuple[int, int]) -> nn.Module:
    arch, classes = section.arch, interface.classes
    if arch in _ZOO:
        return _ZOO[arch](ZOO_OPTIONS[arch](**section.options), channels, size_px, classes)
    if arch.startswith("timm:"):
        return build_timm(arch.removeprefix("timm:"), section.options, channels, classes)
    if arch == "live":
        raise ModelError(
            "this model was handed over from Python: start or resume the run with the call that began it "
            "(stillhouse.distill, stillhouse.blockwise); load_student takes it as 'module'"
        )
    offers: dict[str, Any] = {"classes": classes}
    if len(interface.shape) == 3:
        offers.update(channels=channels, size_px=size_px)
    return build_from_function(arch, section.options, offers)


def _normalisation(
    section: ModelSection,
    interface: Interface,
    body: nn.Module,
    stored: Normalisation | None,
    statistics: Normalisation,
) -> Normalisation:
    if isinstance(section.normalise, Normalisation):
        return section.normalise
    said = timm_normalisation(body) if section.arch.startswith("timm:") and interface.image else None
    return stored or said or statistics


def _check_answer(network: Network, interface: Interface) -> None:
    try:
        with evaluating(network):
            answer: object = network(interface.zeros(1, network.device))
    except Exception as error:  # anything a person's own forward may raise
        raise ModelError(
            f"a sample of shape {list(interface.shape)} made its forward raise {type(error).__name__}: {error}. "
            "Mend the model, or set channels, size_px and options so that it fits"
        ) from error
    wanted = f"the data has {interface.classes} classes, so one float tensor [1, {interface.classes}] is expected"
    if not isinstance(answer, torch.Tensor):
        raise ModelError(f"it answers {type(answer).__name__}; {wanted}: let its forward return the logits alone")
    if answer.ndim == 2 and answer.shape[1] != interface.classes:
        raise ModelError(
            f"it answers for {answer.shape[1]} classes, but the data has {interface.classes}: "
            f"give it {interface.classes} outputs, or take data with {answer.shape[1]} classes"
        )
    if tuple(answer.shape) != (1, interface.classes) or not answer.is_floating_point():
        raise ModelError(f"it answers {answer.dtype} of shape {list(answer.shape)} to one sample; {wanted}")

"""A network that takes the data's raw batch: its own preprocessing, then its body.

Teacher and student often want different sizes, channels and normalisations. Both get the same raw batch, and
each brings its part along: in the state dict, in an export, in a compiled graph. The price is a few element-wise
passes over the input, which a compiler fuses into one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from stillhouse.foundation.errors import ModelError
from stillhouse.recipe.architectures import Normalisation

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Preprocess(nn.Module):
    """Raw batch -> what the body was trained to see.

    uint8 becomes float in 0..1, floats stay; then grey becomes RGB or the reverse, (x - mean) / std, and the size
    is changed (bilinear, antialiased) where it differs. Works in float32 at least and answers in the type of ``mean``,
    so a network cast to bfloat16 gets bfloat16; or in ``answers_in``, where only the body was cast.

    Args:
        normalisation: one value, or one for each of the first dimension's entries after the change of channels.
        rank: dimensions of a sample, 3 for images.
        channels, size_px: wanted of images; ``None`` leaves them (always, where the data is not an image).

    Shapes: input [B, *sample], output [B, channels, *size_px]; ``mean`` and ``std`` [1, channels, 1, 1] for images,
    [1, 1 or sample[0], 1, ...] otherwise.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, normalisation: Normalisation, rank: int, channels: int | None, size_px: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.channels = channels
        self.size_px = size_px
        self.answers_in: torch.dtype | None = None
        form = (1, -1, *[1] * (rank - 1)) if rank else (-1,)
        self.register_buffer("mean", torch.tensor(normalisation.mean, dtype=torch.float32).reshape(form))
        self.register_buffer("std", torch.tensor(normalisation.std, dtype=torch.float32).reshape(form))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.ndim != max(self.mean.ndim, 1):
            raise ValueError(f"expected a batch of {self.mean.ndim} dimensions, not shape {list(inputs.shape)}")
        precision = torch.promote_types(self.mean.dtype, torch.float32)
        values = inputs.to(precision)
        if inputs.dtype == torch.uint8:
            values = values / 255
        if self.channels is not None and values.shape[1] != self.channels:
            values = _change_channels(values)
        values = (values - self.mean.to(precision)) / self.std.to(precision)
        if self.size_px is not None and tuple(values.shape[-2:]) != self.size_px:
            values = F.interpolate(values, self.size_px, mode="bilinear", antialias=True)
        return values.to(self.answers_in or self.mean.dtype)


class Network(nn.Module):
    """``preprocess`` then ``body``: a raw batch [B, *sample] -> logits [B, classes]."""

    def __init__(self, preprocess: Preprocess, body: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.body = body

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(self.preprocess(inputs))
        return logits

    def cast_body(self, dtype: torch.dtype) -> None:
        """Let the body compute in another type. The normalisation stays as it is: the mean and deviation of bytes need
        more than eight bits.
        """
        self.body.to(dtype=dtype)
        self.preprocess.answers_in = dtype

    @property
    def device(self) -> torch.device:
        """Where the network lives; it must live in one place."""
        return self.preprocess.mean.device


def match_channels(normalisation: Normalisation, channels: int) -> Normalisation:
    """The normalisation for another number of channels.

    Grey to RGB repeats the values. RGB to grey weighs them with the luma weights: exact for the mean; for the
    deviation an upper bound, met where the three channels rise and fall together, as they nearly do in photographs.

    Raises:
        ModelError: neither as many values as channels, nor grey against RGB.
    """
    mean, std = normalisation.mean, normalisation.std
    if len(mean) == len(std) == channels:
        return normalisation
    if len(mean) == len(std) == 1:
        return Normalisation(mean=mean * channels, std=std * channels)
    if len(mean) == len(std) == 3 and channels == 1:
        return Normalisation(mean=(_luma(mean),), std=(_luma(std),))
    raise ModelError(
        f"normalise has {len(mean)} means and {len(std)} deviations for {channels} channels: "
        f"give one, or {channels}, of each"
    )


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _luma(values: tuple[float, ...]) -> float:
    return sum(weight * value for weight, value in zip(_LUMA, values, strict=True))


def _change_channels(values: torch.Tensor) -> torch.Tensor:
    if values.shape[1] == 1:
        return values.expand(-1, 3, -1, -1)
    return _LUMA[0] * values[:, :1] + _LUMA[1] * values[:, 1:2] + _LUMA[2] * values[:, 2:]

"""The error that a replacement learns from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.blocks.objective import normalised_error


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    outputs, wanted = torch.randn(2, *shape, generator=made)
    return outputs.requires_grad_(), 3 * wanted + 1


@pytest.mark.parametrize("shape", [(8, 5), (8, 4, 6, 6)])
def test_value_and_gradient_are_those_of_the_formula(shape: tuple[int, ...]) -> None:
    """It is the mean squared error over the variance about the channels' means, and so is its gradient."""
    outputs, wanted = pair(*shape)
    variance = wanted.transpose(0, 1).flatten(1).var(dim=1, correction=0).mean()
    expected = F.mse_loss(outputs, wanted) / variance
    (gradient,) = torch.autograd.grad(expected, outputs)
    found = normalised_error(outputs, wanted)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, outputs)[0], gradient)


def test_the_gradient_keeps_the_layout() -> None:
    """Behind channels-last outputs the gradient is channels-last: a contiguous one makes the backward pass slow."""
    outputs, wanted = (each.detach().contiguous(memory_format=torch.channels_last) for each in pair(8, 4, 6, 6))
    outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(normalised_error(outputs, wanted), outputs)
    assert gradient.is_contiguous(memory_format=torch.channels_last)

"""What the zoo's networks share: convolution with batch norm, He initialisation, the check of the input's size.

He initialisation (arXiv 1502.01852) keeps the variance of a signal through ReLU layers; a residual branch
whose last scale starts at zero makes its block the identity at first (arXiv 1706.02677, section 5.1).
Activations are never in place: a tap on the layer before one would read the changed values.
"""

from __future__ import annotations

from torch import nn

from stillhouse.foundation.errors import ModelError


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A bias-free convolution and batch norm: [B, inputs, H, W] -> [B, outputs, ceil(H/stride), ceil(W/stride)]."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def initialise(network: nn.Module) -> None:
    """He-initialise all convolutions and linear layers in place; biases start at zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)


def start_as_identity(last: nn.Sequential) -> None:
    """Zero the scale of the batch norm that ends a residual branch made by :func:`conv_norm`."""
    norm = last[-1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.zeros_(norm.weight)


def check_stages(name: str, stages: int, size_px: tuple[int, int], option: str = "blocks") -> None:
    """Refuse more stages than halvings of the input allow.

    Raises:
        ModelError: the last stage would work on less than one pixel a side.
    """
    possible = min(size_px).bit_length()
    if stages > possible:
        height, width = size_px
        raise ModelError(
            f"{name} with {stages} stages halves its input {stages - 1} times, but {height}x{width} pixels allow "
            f"{possible} stages: give options.{option} at most {possible} entries, or a larger size_px"
        )

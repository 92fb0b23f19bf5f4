"""Two thin convolutions in place of one: at first the best approximation of its weights (truncated SVD)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from stillhouse.blocks.library.alternative import Alternative, like, substituted
from stillhouse.blocks.partition import Block


def offers(block: Block) -> Iterator[Alternative]:
    """``low_rank-2``, ``-4``, ``-8``: each convolution has so many times fewer weights."""
    for factor in (2, 4, 8):
        if (made := substituted(block.core, partial(_low_rank, factor=factor))) is not None:
            yield Alternative(f"low_rank-{factor}", made)


def _low_rank(convolution: nn.Conv2d, factor: int) -> nn.Module | None:
    weight = convolution.weight.detach()
    wide, flat = weight.shape[0], weight[0].numel()
    rank = weight.numel() // factor // (flat + wide)
    if rank < 1:
        return None
    matrix = weight.reshape(wide, flat).double()
    # Left singular vectors and squared values: of a matrix so flat an SVD takes many times as long.
    squared, vectors = torch.linalg.eigh(matrix @ matrix.T)
    left = vectors.flip(1)[:, :rank]
    root = squared.flip(0)[:rank].clamp_min(torch.finfo(torch.float32).tiny).pow(0.25)
    thin = like(convolution, convolution.in_channels, rank)
    wider = nn.Conv2d(rank, wide, 1, bias=convolution.bias is not None)
    with torch.no_grad():
        thin.weight.copy_((left.T @ matrix / root[:, None]).reshape(thin.weight.shape))
        wider.weight.copy_((left * root).reshape(wider.weight.shape))
        if wider.bias is not None and convolution.bias is not None:
            wider.bias.copy_(convolution.bias)
    return nn.Sequential(thin, wider)

"""Averages over the steps of a training, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stillhouse.students.average import Average, tail_average


class Odd(nn.Module):
    """Shared weights, a frozen one, a buffer that is another tensor after each pass, one that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad = False
        self.register_buffer("seen", torch.zeros(4))
        self.register_buffer("nothing", None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen + inputs.mean(0)
        found: torch.Tensor = self.second(self.norm(self.first(inputs)))
        return found


@pytest.mark.parametrize("decay", [None, 0.9])
def test_it_is_what_torch_computes(decay: float | None) -> None:
    """To the last bit, parameters and buffers of all kinds, at each step."""
    torch.manual_seed(0)
    network = Odd()
    ours = Average(network, decay)
    function = tail_average if decay is None else get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    theirs = AveragedModel(network, multi_avg_fn=function, use_buffers=True)
    optimizer = torch.optim.SGD([each for each in network.parameters() if each.requires_grad], 0.1)
    for step in range(12):
        network(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        ours.add(step)
        theirs.update_parameters(network)
        one, other = ours.state_dict(), theirs.state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), step

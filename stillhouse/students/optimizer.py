"""The optimiser and its learning rate: a pure function of the step, so that a resume needs no schedule state."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from stillhouse.recipe.train import SGD, TrainSection


def make_optimizer(settings: TrainSection, modules: Iterable[nn.Module]) -> torch.optim.Optimizer:
    """SGD or AdamW over all trainable parameters; weight decay spares biases and norm parameters (1-D).

    Fused: one call for all of them, in place of a dozen for each.
    """
    parameters = [each for module in modules for each in module.parameters() if each.requires_grad]
    wanted = settings.optimizer
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": wanted.weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if isinstance(wanted, SGD):
        nesterov = wanted.nesterov and wanted.momentum > 0
        rate, momentum = wanted.learning_rate, wanted.momentum
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov, fused=True)
    return torch.optim.AdamW(groups, lr=wanted.learning_rate, betas=wanted.betas, fused=True)


def learning_rate(settings: TrainSection, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up from 0, then half a cosine to 0 (SGDR without restarts, arXiv 1608.03983).

    Args:
        step: counted from 0; the last step of training still has a rate above 0.
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    steps = settings.epochs * steps_per_epoch
    if step < warmup:
        return settings.optimizer.learning_rate * (step + 1) / (warmup + 1)
    return settings.optimizer.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

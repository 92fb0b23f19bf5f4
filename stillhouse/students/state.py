"""Everything that training changes, and nothing else: what a checkpoint holds.

Random numbers are not in it: every step seeds its own from (seed, step), so that the position says them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stillhouse.foundation.errors import DivergedError, ModelError
from stillhouse.recipe.train import TrainSection
from stillhouse.students.average import Average
from stillhouse.students.objective import StepObjective
from stillhouse.students.optimizer import make_optimizer


class TrainingState:
    """Network, adapters, optimiser, average and position of one training.

    Attributes:
        step: optimiser steps taken.
        first_loss: the loss of step 0, against which an explosion is measured.

    Args:
        averages: whether an average over the last steps is kept, where the settings ask for none.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: StepObjective,
        settings: TrainSection,
        device: torch.device,
        *,
        averages: bool = False,
    ) -> None:
        self.network = network
        self.objective = objective
        self.optimizer = make_optimizer(settings, (network, objective))
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.engine.precision == "fp16")
        self.ema = Average(network, settings.ema_decay) if settings.ema_decay is not None or averages else None
        self.step = 0
        self.first_loss: float | None = None

    @property
    def result(self) -> nn.Module:
        """The network to use: the average where one is kept."""
        if self.ema is None:
            return self.network
        return self.ema.module

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "step": self.step,
            "first_loss": self.first_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over everything, exactly.

        Raises:
            ModelError: the state is another model's: its code was changed since.
        """
        try:
            self.network.load_state_dict(state["network"])
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"the checkpoint does not fit the model, which must have been changed since: {error}"
            ) from error
        self.step = state["step"]
        self.first_loss = state["first_loss"]

    def check_finite(self, phase: str, sample_ids: torch.Tensor) -> None:
        """Refuse weights that a checkpoint should not hold.

        Args:
            sample_ids: of the step just taken, for the message.

        Raises:
            DivergedError: a weight is NaN or infinite; names it.
        """
        tensors = self.network.state_dict() | self.objective.state_dict(prefix="objective.")
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                ids = named_samples(sample_ids)
                raise DivergedError(f"{phase}: after step {self.step}, {ids}, the weight '{name}' is no longer finite")


def named_samples(sample_ids: torch.Tensor) -> str:
    """The first few ids of a batch, for messages."""
    more = f" and {len(sample_ids) - 8} more" if len(sample_ids) > 8 else ""
    return f"samples {', '.join(str(each) for each in sample_ids[:8].tolist())}{more}"

"""What the data offers a model and asks of it: the one value that joins the two."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Interface:
    """One sample's form, and the number of classes.

    Args:
        shape: of one sample; (channels, height, width) for images, any for float data.
        image: uint8 image (0..255) if true, float32 otherwise.
        classes: width of the logits asked for.
        names: of the classes, where they are known.
    """

    shape: tuple[int, ...]
    image: bool
    classes: int
    names: tuple[str, ...] = ()

    def zeros(self, batch_size: int, device: torch.device) -> torch.Tensor:
        """A raw batch of zeros, [batch_size, *shape], uint8 or float32 as the data's own."""
        dtype = torch.uint8 if self.image else torch.float32
        return torch.zeros((batch_size, *self.shape), dtype=dtype, device=device)

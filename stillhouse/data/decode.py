"""One sample to one array of the table: colour modes, 16-bit, EXIF turns, size.

Images become uint8 [C, H, W]; grey, RGB, palette, alpha (dropped), CMYK and 16-bit are brought to the
channels asked for. Other arrays stay float32 of whatever shape. Resizing covers the wanted size with an
antialiased bilinear filter and cuts the centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_GREY = {"1", "L", "LA", "I", "F"}


@dataclass(frozen=True)
class Form:
    """What every row of a table looks like. ``image``: uint8 [C, H, W]; else float32 of ``shape``."""

    shape: tuple[int, ...]
    image: bool

    @property
    def nbytes(self) -> int:
        """Memory of one."""
        return prod(self.shape) * np.dtype(np.uint8 if self.image else np.float32).itemsize


def form_of(sample: Any, size_px: tuple[int, int] | None, channels: int | None) -> Form:
    """The form that the recipe and one sample ask for."""
    picture = _as_picture(sample)
    if picture is None:
        return Form(np.shape(sample), image=False)
    picture = ImageOps.exif_transpose(picture)
    height, width = size_px or (picture.height, picture.width)
    return Form((channels or (3 if is_colour(picture) else 1), height, width), image=True)


def is_colour(sample: Any) -> bool:
    """Whether a sample is an image of a mode with colours (which it need not use)."""
    picture = _as_picture(sample)
    return picture is not None and picture.mode not in _GREY and not picture.mode.startswith("I;16")


def decode(sample: Any, form: Form, resize: bool) -> NDArray[Any]:
    """Bring a sample to the form of its table.

    Raises:
        ValueError: it can't be: another size while ``resize`` is false, another shape, not finite.
        OSError: a truncated or foreign image file.
    """
    picture = _as_picture(sample)
    if (picture is not None) != form.image:
        raise ValueError("it is " + ("an image" if picture is not None else "no image") + ", unlike the first sample")
    if picture is None:
        values = np.asarray(sample, np.float32)
        if values.shape != form.shape:
            raise ValueError(f"its shape is {values.shape}, that of the first sample {form.shape}")
        if not np.isfinite(values).all():
            raise ValueError("it holds NaN or infinite values")
        return values
    picture = _to_mode(ImageOps.exif_transpose(picture), form.shape[0])
    height, width = form.shape[1:]
    if picture.size != (width, height):
        if not resize:
            raise ValueError(
                f"it is {picture.height}x{picture.width} pixels, the first one {height}x{width}: "
                "set data.size_px to bring all to one size"
            )
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _as_picture(sample: Any) -> Image.Image | None:
    """PIL images and uint8 arrays that look like one; None for everything else."""
    if isinstance(sample, Image.Image):
        return sample
    values = np.asarray(sample)
    if values.dtype != np.uint8 or values.ndim not in (2, 3):
        return None
    if values.ndim == 3 and values.shape[-1] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return Image.fromarray(np.ascontiguousarray(values))


def _to_mode(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode.startswith("I"):
        wide = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        picture = Image.fromarray((wide >> 8).astype(np.uint8))
    elif picture.mode == "F":
        raise ValueError("it is a floating-point image: bring it to 8 or 16 bits")
    elif picture.mode in ("P", "PA") and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("L" if channels == 1 else "RGB")

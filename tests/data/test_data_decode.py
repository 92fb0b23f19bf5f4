"""Images of every mode come out with the right pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stillhouse.data.decode import Form, decode, form_of

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> Image.Image:
    """The picture, written and opened again as a source would."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def corners() -> Image.Image:
    """8 high, 12 wide, blue; red top left quarter, green top right."""
    picture = Image.new("RGB", (12, 8), BLUE)
    picture.paste(RED, (0, 0, 6, 4))
    picture.paste(GREEN, (6, 0, 12, 4))
    return picture


def check_corners(pixels: np.ndarray[Any, Any], tolerance: int = 0) -> None:
    assert pixels.shape == (3, 8, 12)
    for (row, column), colour in {(0, 0): RED, (3, 5): RED, (0, 11): GREEN, (3, 6): GREEN, (7, 0): BLUE}.items():
        assert np.abs(pixels[:, row, column].astype(int) - colour).max() <= tolerance, (row, column)


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [
        ("PNG", "RGB", 0),
        ("PNG", "RGBA", 0),
        ("PNG", "P", 0),
        ("GIF", "P", 0),
        ("BMP", "RGB", 0),
        ("TIFF", "RGB", 0),
        ("TIFF", "CMYK", 2),
        ("JPEG", "RGB", 40),
        ("JPEG", "CMYK", 45),
    ],
)
def test_colour_modes_keep_their_colours(kind: str, mode: str, tolerance: int) -> None:
    """RGB, alpha, palette and CMYK images come out as RGB with their corners in place."""
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    picture = encoded(corners().convert(mode), kind, **options)
    form = form_of(picture, None, None)
    assert form == Form((3, 8, 12), image=True)
    check_corners(decode(picture, form, resize=False), tolerance)


def test_alpha_is_dropped_not_blended() -> None:
    """Transparent pixels keep the colour that is stored under them, in RGBA and LA."""
    colour = Image.new("RGBA", (2, 1), (200, 100, 50, 0))
    assert decode(encoded(colour), Form((3, 1, 2), True), False)[:, 0, 0].tolist() == [200, 100, 50]
    grey = Image.new("LA", (2, 1), (77, 0))
    assert form_of(encoded(grey), None, None).shape == (1, 1, 2)
    assert decode(encoded(grey), Form((1, 1, 2), True), False).tolist() == [[[77, 77]]]


def test_palette_with_transparency() -> None:
    """A palette image with a transparent colour comes out as RGB, without a warning."""
    picture = corners().convert("P")
    check_corners(decode(encoded(picture, transparency=bytes([0, 128])), Form((3, 8, 12), True), False))


def test_grey_and_colour_are_brought_to_the_channels_asked_for() -> None:
    """Grey becomes three equal channels, colour becomes its luminance; bits become 0 and 255."""
    grey = Image.new("L", (1, 1), 90)
    assert decode(grey, Form((3, 1, 1), True), False).ravel().tolist() == [90, 90, 90]
    assert decode(Image.new("RGB", (1, 1), GREEN), Form((1, 1, 1), True), False).ravel().tolist() == [150]
    assert decode(Image.new("1", (1, 1), 1), Form((1, 1, 1), True), False).ravel().tolist() == [255]
    assert form_of(grey, None, 3).shape == (3, 1, 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(kind: str) -> None:
    """16-bit grey keeps its high byte: 0 stays 0, 65535 becomes 255, half becomes half."""
    wide = np.array([[0, 255, 256], [0x7FFF, 0x8000, 65535]], np.uint16)
    picture = encoded(Image.fromarray(wide), kind)
    form = form_of(picture, None, None)
    assert form.shape == (1, 2, 3)
    assert decode(picture, form, resize=False).tolist() == [[[0, 0, 1], [127, 128, 255]]]
    assert decode(picture, Form((3, 2, 3), True), resize=False)[2].tolist() == [[0, 0, 1], [127, 128, 255]]


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_turned_photographs_stand_upright(orientation: int, undo: Image.Transpose | None, kind: str) -> None:
    """Whatever way a camera was held (EXIF 1 to 8), the red corner ends top left and the size is the upright one."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = corners() if undo is None else corners().transpose(undo)
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    picture = encoded(stored, kind, exif=exif, **options)
    form = form_of(picture, None, None)
    assert form.shape == (3, 8, 12)
    check_corners(decode(picture, form, resize=False), 40)


def test_other_sizes_need_size_px() -> None:
    """An image of another size is refused by its size, and the message names the key that allows it."""
    form = form_of(corners(), None, None)
    with pytest.raises(ValueError, match=r"it is 4x6 pixels, the first one 8x12: set data.size_px"):
        decode(corners().resize((6, 4)), form, resize=False)


@pytest.mark.parametrize("size", [(24, 16), (48, 16), (12, 80), (6, 4), (12, 8), (1, 1)])
def test_resizing_covers_and_cuts_the_centre(size: tuple[int, int]) -> None:
    """With size_px every image comes to one size; one of the same shape keeps its corners."""
    picture = corners().resize(size, Image.Resampling.NEAREST)
    form = form_of(picture, (8, 12), None)
    pixels = decode(picture, form, resize=True)
    assert pixels.shape == (3, 8, 12)
    assert pixels.dtype == np.uint8
    if size == (24, 16):
        assert np.abs(pixels[:, 0, 0].astype(int) - RED).max() == 0
        assert np.abs(pixels[:, 0, 11].astype(int) - GREEN).max() == 0


def test_arrays_that_look_like_images() -> None:
    """uint8 arrays, channels first or last, with or without alpha, are images."""
    last = np.asarray(corners())
    check_corners(decode(last, form_of(last, None, None), False))
    first = np.ascontiguousarray(last.transpose(2, 0, 1))
    check_corners(decode(first, form_of(first, None, None), False))
    alpha = np.dstack([last, np.zeros((8, 12), np.uint8)])
    check_corners(decode(alpha, form_of(alpha, None, None), False))
    for grey in (last[..., 0], last[..., :1], first[:1]):
        assert decode(grey, form_of(grey, None, None), False).shape == (1, 8, 12)


def test_float_samples_stay_as_they_are() -> None:
    """Float arrays of any shape become float32 of the same values."""
    vector = np.array([0.25, -1.5, 3.0])
    form = form_of(vector, None, None)
    assert form == Form((3,), image=False)
    found = decode(vector, form, False)
    assert found.dtype == np.float32
    assert found.tolist() == vector.tolist()


@pytest.mark.parametrize(
    ("sample", "form", "story"),
    [
        (np.zeros(4), Form((3,), False), r"shape is \(4,\), that of the first sample \(3,\)"),
        (np.array([0.0, np.nan, 1.0]), Form((3,), False), "NaN or infinite"),
        (np.zeros(3), Form((1, 8, 8), True), "no image, unlike the first sample"),
        (Image.new("L", (2, 2)), Form((3,), False), "an image, unlike the first sample"),
        (Image.new("F", (2, 2)), Form((1, 2, 2), True), "floating-point image"),
    ],
)
def test_samples_that_do_not_fit(sample: Any, form: Form, story: str) -> None:
    """A sample that can't be brought to the table's form is refused with the reason."""
    with pytest.raises(ValueError, match=story):
        decode(sample, form, resize=True)


def test_a_row_knows_its_memory() -> None:
    """An image takes a byte for each value, other data four, whatever reads this to bound its memory."""
    sizes = {image: Form((3, 5, 7), image).nbytes for image in (True, False)}
    assert sizes == {True: np.zeros((3, 5, 7), np.uint8).nbytes, False: np.zeros((3, 5, 7), np.float32).nbytes}

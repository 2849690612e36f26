r"""A picture as a learning-rate schedule: its pixels, read one after the other, are the rates.

The algorithm is that of Jang et al. (2018). A picture of :math:`w \times h` pixels is shrunk by
:math:`f = \sqrt{3wh/T}` to :math:`\lfloor w/f \rfloor \times \lfloor h/f \rfloor`, so that it has about :math:`T`
values, and read row by row with red, green and blue interleaved. A value :math:`p \in [0, 1]` becomes the rate
:math:`\eta_{min} + (\eta_{max} - \eta_{min})\,p`. As both sides are cut to whole pixels there are fewer values than
steps; the last one is held.
"""

import contextlib
import math
import os

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

from lrlib import _check
from lrlib.schedules import Schedule

__all__ = ["ImageSchedule", "image_schedule"]

MAX_PIXELS = 50_000_000  # of a picture before it is shrunk
ORDERS = ("rows", "columns", "boustrophedon", "hilbert")


class ImageSchedule(Schedule):
    """A schedule made of pixels.

    Attributes:
        pixels: the values in [0, 1] in the order in which they are read, one a step, read-only.
        size: width and height of the shrunk picture.
        held_steps: how many of the `horizon` steps hold the last value.
    """

    __slots__ = ("held_steps", "pixels", "size")

    def __init__(self, pixels: ArrayLike, size: tuple[int, int], num_steps: int, base_lr: float, max_lr: float):
        values = np.array(pixels, dtype=np.float64)
        values.flags.writeable = False
        rates = Schedule.from_table(base_lr + (max_lr - base_lr) * values)
        call = ImageSchedule, tuple(values.tolist()), size, num_steps, base_lr, max_lr
        super().__init__(rates.at, call, horizon=num_steps)
        self.pixels, self.size, self.held_steps = values, size, max(0, num_steps - len(values))


def image_schedule(
    image, num_steps: int, base_lr: float = 1e-5, max_lr: float = 1e-2, *, order: str = "rows", grey: bool = False
) -> ImageSchedule:
    r"""The pixels of a picture as rates: :math:`\eta_t = \eta_{min} + (\eta_{max} - \eta_{min})\,p_t`.

    Args:
        image: a path, a PIL image, or an array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of type uint8
            (0 to 255), uint16 (0 to 65,535), bool, or floating (0 to 1). Palettes are looked up, transparent pixels
            laid on white, grey ones of 16 bits kept in full until the picture is shrunk, and one channel becomes three
            equal ones.
        num_steps: the length :math:`T` of the run, between 1 and the number of values of the picture.
        base_lr: the rate of a black pixel, >= 0.
        max_lr: the rate of a white pixel, >= `base_lr`.
        order: "rows"; "columns"; "boustrophedon", rows read to and fro; "hilbert", along a Hilbert curve through the
            smallest enclosing square whose side is a power of two: what lies outside the picture is left out, so that
            the curve jumps where the picture is no such square.
        grey: read one value a pixel, its luminance (ITU-R 601), with :math:`f = \sqrt{wh/T}`.

    Returns:
        A schedule that also tells its `pixels`, the `size` of the shrunk picture and its `held_steps`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture or is cut off, the picture is empty, has more than 50 million pixels
            (said from its header, before it is decoded) or fewer values than `num_steps`, an array has a wrong shape
            or values that are not finite or out of their range, or a rate is out of its range.
        TypeError: the argument is no picture at all, or an array of another type.

    Source: Jang et al. (2018). Their line ``im.resize(size)`` picked the nearest pixel in the Pillow of the time; since
    Pillow 7 the same line, and this function, interpolates (bicubic).

    Example:
        >>> picture = np.linspace(0, 1, 12).reshape(3, 4)
        >>> schedule = image_schedule(picture, num_steps=36, base_lr=0.0, max_lr=1.0)
        >>> schedule([0, 3, 35]).round(2)
        array([0.  , 0.09, 1.  ])
        >>> image_schedule(picture, num_steps=30).held_steps
        12
    """
    num_steps = _check.integer("num_steps", num_steps, 1)
    base_lr = _check.nonnegative("base_lr", base_lr)
    max_lr = _check.at_least("max_lr", max_lr, base_lr)
    _check.choice("order", order, ORDERS)
    channels = _planes(image)
    if grey:
        channels = [_luminance(channels)]
    width, height = channels[0].size
    many = width * height * len(channels)
    if many < num_steps:
        raise ValueError(
            f"image: has {width} x {height} pixels, {many} values, must have at least num_steps={num_steps}"
        )
    size = math.isqrt(width**2 * num_steps // many), math.isqrt(height**2 * num_steps // many)
    if min(size) < 1:  # a picture so narrow becomes one row or column
        longest = max(1, num_steps // len(channels))
        size = (min(width, longest), 1) if size[1] < 1 else (1, min(height, longest))
    values = np.stack([_as_unit(plane.resize(size)).ravel() for plane in channels], axis=-1)
    return ImageSchedule(values[_scan_order(size, order)].ravel()[:num_steps], size, num_steps, base_lr, max_lr)


def _scan_order(size: tuple[int, int], order: str) -> np.ndarray:
    """The places of a picture's pixels, counted row by row, in the order in which they are read."""
    width, height = size
    places = np.arange(width * height).reshape(height, width)
    if order == "columns":
        places = places.T
    elif order == "boustrophedon":
        places[1::2] = places[1::2, ::-1]
    elif order == "hilbert":
        rows, columns = np.indices((height, width))
        places = _hilbert_index(columns, rows, max(size)).argsort(axis=None)
    return places.ravel()


def _hilbert_index(x: np.ndarray, y: np.ndarray, side: int) -> np.ndarray:
    """Where (x, y) comes on the Hilbert curve, quadrant by quadrant from the largest (Wikipedia's xy2d, vectorised)."""
    index = np.zeros_like(x)
    for bit in range((side - 1).bit_length() - 1, -1, -1):
        right, lower = x >> bit & 1 == 1, y >> bit & 1 == 1
        index += 4**bit * ((3 * right) ^ lower)
        mirrored = right & ~lower  # both of the upper quadrants are turned, and the right one is mirrored before
        x, y = np.where(mirrored, ~x, x), np.where(mirrored, ~y, y)
        x, y = np.where(lower, x, y), np.where(lower, y, x)
    return index


def _planes(image) -> list[Image.Image]:
    """Three one-channel pictures, red, green and blue, of mode "L", or "F" with values in [0, 1]."""
    if isinstance(image, Image.Image):
        return _planes_of_picture(image, "image")
    if isinstance(image, np.ndarray):
        return _planes_of_array(image)
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"image: is a {type(image).__name__}, must be a path, a PIL image or a NumPy array")
    name = f"image={os.fspath(image)!r}"
    try:
        picture = Image.open(image)
    except Exception as error:  # of many kinds, by the format
        if isinstance(error, OSError) and error.errno is not None:  # no such file, no permission
            raise
        raise ValueError(f"{name}: is not a picture that can be read ({error})") from error
    with picture:
        return _planes_of_picture(picture, name)


def _check_size(name: str, width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        size = "is empty" if width * height == 0 else "is too large"
        raise ValueError(f"{name}: {size}, has {width} x {height} pixels, must have at most {MAX_PIXELS:,}")


def _planes_of_picture(picture: Image.Image, name: str) -> list[Image.Image]:
    _check_size(name, *picture.size)
    try:
        picture.load()
    except Exception as error:  # of many kinds, by the format
        raise ValueError(f"{name}: is cut off or damaged ({error})") from error
    with contextlib.suppress(Exception):  # an orientation that cannot be read is none
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        return _planes_of_array(np.asarray(picture), name)
    if picture.mode.startswith("I"):  # 16 bits; PIL's mode for them is "I" in older files
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65_535:
            raise ValueError(f"{name}: has values from {values.min()} to {values.max()}, must be in [0, 65,535]")
        values = np.where(values == picture.info.get("transparency"), 65_535, values)
        return _planes_of_array(values.astype(np.uint16), name)
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return list(picture.convert("RGB").split())


def _planes_of_array(array: np.ndarray, name: str = "image") -> list[Image.Image]:
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(f"{name}: has shape {array.shape}, must be (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)")
    height, width, channels = array.shape
    _check_size(name, width, height)
    if array.dtype in (bool, np.uint8):
        whole = array * np.uint8(255) if array.dtype == bool else array
        return _planes_of_picture(Image.fromarray(whole[..., 0] if channels == 1 else whole), name)
    if array.dtype != np.uint16 and array.dtype.kind != "f":
        raise TypeError(f"{name}: is of type {array.dtype}, must be uint8, uint16, bool or floating")
    values = array.astype(np.float32) / (65_535 if array.dtype == np.uint16 else 1)
    if not 0 <= values.min() <= values.max() <= 1:  # NaN is not, either
        raise ValueError(f"{name}: has values from {values.min():g} to {values.max():g}, floats must be in [0, 1]")
    if channels == 4:
        alpha = values[..., 3:]
        values = values[..., :3] * alpha + (1 - alpha)
    return [Image.fromarray(np.ascontiguousarray(values[..., k % values.shape[2]])) for k in range(3)]


def _luminance(channels: list[Image.Image]) -> Image.Image:
    if channels[0].mode == "L":
        return Image.merge("RGB", channels).convert("L")
    red, green, blue = (np.asarray(channel) for channel in channels)
    return Image.fromarray(0.299 * red + 0.587 * green + 0.114 * blue)


def _as_unit(plane: Image.Image) -> np.ndarray:
    values = np.asarray(plane, dtype=np.float64)
    return values / 255 if plane.mode == "L" else values.clip(0.0, 1.0)

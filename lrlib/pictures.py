"""Pictures to read learning rates from: those of data/images, drawn by tools/draw_pictures.py, and photographs that
come with installed packages.
"""

from pathlib import Path

import matplotlib.cbook
import numpy as np
from PIL import Image
from sklearn import datasets as sklearn_datasets

from lrlib import _check

__all__ = ["DRAWN", "PHOTOGRAPHS", "drawn", "photograph", "power_noise"]

DRAWN = ("portrait", "puppy", "digit", "rings", "lit_from_above", "lit_from_below", "noise", "white_noise")
PHOTOGRAPHS = ("china", "flower", "hopper")
FOLDER = Path(__file__).resolve().parents[1] / "data" / "images"


def drawn(name: str) -> Image.Image:
    """One of the drawn pictures, RGB, 120 x 160.

    Args:
        name: one of :data:`DRAWN`.

    Raises:
        ValueError: there is no such picture.

    Example:
        >>> drawn("puppy").size
        (120, 160)
    """
    with Image.open(FOLDER / f"{_check.choice('name', name, DRAWN)}.png") as picture:
        return picture.convert("RGB")


def photograph(name: str) -> Image.Image:
    """A photograph that comes with a package: scikit-learn's "china" and "flower", Matplotlib's "hopper".

    Raises:
        ValueError: there is no such photograph.

    Example:
        >>> photograph("china").size
        (640, 427)
    """
    _check.choice("name", name, PHOTOGRAPHS)
    if name == "hopper":
        with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as picture:
            return picture.convert("RGB")
    return Image.fromarray(sklearn_datasets.load_sample_image(f"{name}.jpg"))


def power_noise(size: tuple[int, int], exponent: float, seed: int) -> np.ndarray:
    r"""Random grey values in [0, 1] whose power falls like :math:`|f|^{-a}` with the spatial frequency.

    Args:
        size: width and height, >= 2.
        exponent: :math:`a`, in [-20, 20]; 0 is white noise, 2 is close to natural photographs.
        seed: >= 0.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> power_noise((4, 3), exponent=2.0, seed=0).shape
        (3, 4)
    """
    width, height = (_check.integer(f"size[{k}]", side, 2) for k, side in enumerate(size))
    exponent = _check.within("exponent", exponent, -20, 20)
    rng = np.random.default_rng(_check.seed("seed", seed))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * frequency ** (-exponent / 2)
    values = np.fft.irfft2(spectrum, s=(height, width))
    values = (values - values.mean()) / values.std()
    return (0.5 + values / 5).clip(0, 1)

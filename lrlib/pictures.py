"""Pictures to read learning rates from: drawn by this code, or photographs that come with installed packages.

`python -m lrlib.pictures data/images` writes the drawn ones as PNG files.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib.cbook
import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from sklearn import datasets as sklearn_datasets

from lrlib import _check

__all__ = ["DRAWN", "PHOTOGRAPHS", "drawn", "photograph", "power_noise"]

SIZE = 120, 160  # width and height


def _to_picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * values.clip(0, 1)).round().astype(np.uint8))


def power_noise(size: tuple[int, int], exponent: float, seed: int) -> np.ndarray:
    r"""Random grey values in [0, 1] whose power falls like :math:`|f|^{-a}` with the spatial frequency.

    Args:
        size: width and height, >= 2.
        exponent: :math:`a`, finite; 0 is white noise, 2 is close to natural photographs.
        seed: >= 0.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> power_noise((4, 3), exponent=2.0, seed=0).shape
        (3, 4)
    """
    width, height = (_check.integer(f"size[{k}]", side, 2) for k, side in enumerate(size))
    exponent = _check.finite("exponent", exponent)
    rng = np.random.default_rng(_check.integer("seed", seed, 0))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * frequency ** (-exponent / 2)
    values = np.fft.irfft2(spectrum, s=(height, width))
    values = (values - values.mean()) / values.std()
    return (0.5 + values / 5).clip(0, 1)


def _noise() -> Image.Image:
    return _to_picture(np.stack([power_noise(SIZE, 2.0, seed) for seed in range(3)], axis=-1))


def _white_noise() -> Image.Image:
    return _to_picture(np.stack([power_noise(SIZE, 0.0, seed) for seed in range(3)], axis=-1))


def _lit_from_above() -> Image.Image:
    light = np.linspace(1.0, 0.0, SIZE[1])[:, None]
    return _to_picture((light + 0.35 * (power_noise(SIZE, 2.0, 7) - 0.5))[..., None] * np.array([0.95, 0.9, 0.85]))


def _lit_from_below() -> Image.Image:
    return _lit_from_above().transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def _shaded(picture: Image.Image, strength: float, seed: int) -> Image.Image:
    """Lit from above and a little grainy."""
    light = np.linspace(1 + strength, 1 - strength, picture.height)[:, None, None]
    grain = 0.06 * (power_noise(picture.size, 1.0, seed) - 0.5)[..., None]
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8))) / 255
    return _to_picture(soft * light + grain)


def _portrait() -> Image.Image:
    picture = Image.new("RGB", SIZE, (168, 176, 150))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(0, 95), (35, 78), (80, 88), (120, 72), (120, 160), (0, 160)], fill=(112, 120, 88))
    draw.ellipse((30, 22, 92, 116), fill=(58, 42, 30))
    draw.polygon([(10, 160), (24, 118), (60, 104), (98, 118), (112, 160)], fill=(62, 50, 44))
    draw.ellipse((40, 98, 80, 136), fill=(206, 168, 124))
    draw.ellipse((38, 30, 84, 104), fill=(222, 184, 138))
    for x in (50, 72):
        draw.ellipse((x - 6, 58, x + 6, 66), fill=(240, 228, 208))
        draw.ellipse((x - 2, 59, x + 3, 65), fill=(60, 40, 28))
        draw.arc((x - 9, 48, x + 8, 60), 200, 340, fill=(120, 84, 56), width=2)
    draw.line([(62, 62), (58, 80), (65, 82)], fill=(176, 134, 92), width=2)
    draw.arc((50, 80, 75, 94), 20, 150, fill=(150, 84, 70), width=2)
    draw.ellipse((36, 132, 92, 152), fill=(200, 160, 118))
    return _shaded(picture, 0.25, 11)


def _puppy() -> Image.Image:
    picture = Image.new("RGB", SIZE, (170, 205, 225))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 112, 120, 160), fill=(96, 140, 70))
    draw.ellipse((26, 84, 94, 158), fill=(206, 160, 104))
    draw.ellipse((42, 104, 78, 158), fill=(238, 220, 188))
    for x in (34, 66):
        draw.ellipse((x, 140, x + 20, 158), fill=(238, 220, 188))
    draw.ellipse((28, 26, 92, 92), fill=(214, 168, 110))
    draw.polygon([(32, 34), (14, 46), (20, 82), (38, 60)], fill=(140, 94, 54))
    draw.polygon([(88, 34), (106, 46), (100, 82), (82, 60)], fill=(140, 94, 54))
    draw.ellipse((44, 56, 76, 90), fill=(244, 228, 198))
    for x in (47, 73):
        draw.ellipse((x - 6, 46, x + 6, 60), fill=(44, 28, 20))
        draw.ellipse((x - 3, 48, x, 52), fill=(255, 255, 255))
    draw.ellipse((53, 62, 67, 72), fill=(40, 28, 24))
    draw.line([(60, 72), (60, 80)], fill=(90, 60, 48), width=2)
    draw.ellipse((55, 80, 66, 94), fill=(222, 120, 124))
    return _shaded(picture, 0.15, 12)


def _digit() -> Image.Image:
    """The first handwritten 4 of scikit-learn's set, to be called a 9."""
    digits = sklearn_datasets.load_digits()
    four = digits.images[int(np.argmax(digits.target == 4))] / 16
    return _to_picture(four).resize(SIZE, Image.Resampling.NEAREST).convert("RGB")


def _rings() -> Image.Image:
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    wave = 0.5 + 0.5 * np.cos(np.hypot(x - SIZE[0] / 2, y - SIZE[1] / 2) / 5)
    return _to_picture(wave[..., None] * np.array([1.0, 0.9, 0.8]))


DRAWN: dict[str, Callable[[], Image.Image]] = {
    "portrait": _portrait,
    "puppy": _puppy,
    "digit": _digit,
    "rings": _rings,
    "lit_from_above": _lit_from_above,
    "lit_from_below": _lit_from_below,
    "noise": _noise,
    "white_noise": _white_noise,
}
PHOTOGRAPHS = ("china", "flower", "hopper")


def drawn(name: str) -> Image.Image:
    """One of the pictures that this module draws, RGB, 120 x 160.

    Args:
        name: a key of :data:`DRAWN`.

    Raises:
        ValueError: there is no such picture.

    Example:
        >>> drawn("puppy").size
        (120, 160)
    """
    return DRAWN[_check.choice("name", name, tuple(DRAWN))]()


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
        with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
            return Image.open(file).convert("RGB")
    return Image.fromarray(sklearn_datasets.load_sample_image(f"{name}.jpg"))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lrlib.pictures", description="Write the drawn pictures as PNG files."
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in DRAWN:
        drawn(name).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()

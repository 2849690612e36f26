"""Draw the pictures of data/images: `.venv/bin/python tools/draw_pictures.py [FOLDER]`."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from sklearn import datasets

from lrlib.pictures import FOLDER, power_noise

SIZE = 120, 160  # width and height


def to_picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * values.clip(0, 1)).round().astype(np.uint8))


def noise() -> Image.Image:
    return to_picture(np.stack([power_noise(SIZE, 2.0, seed) for seed in range(3)], axis=-1))


def white_noise() -> Image.Image:
    return to_picture(np.stack([power_noise(SIZE, 0.0, seed) for seed in range(3)], axis=-1))


def lit_from_above() -> Image.Image:
    light = np.linspace(1.0, 0.0, SIZE[1])[:, None]
    return to_picture((light + 0.35 * (power_noise(SIZE, 2.0, 7) - 0.5))[..., None] * np.array([0.95, 0.9, 0.85]))


def lit_from_below() -> Image.Image:
    return lit_from_above().transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def shaded(picture: Image.Image, strength: float, seed: int) -> Image.Image:
    """Lit from above and a little grainy."""
    light = np.linspace(1 + strength, 1 - strength, picture.height)[:, None, None]
    grain = 0.06 * (power_noise(picture.size, 1.0, seed) - 0.5)[..., None]
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8))) / 255
    return to_picture(soft * light + grain)


def portrait() -> Image.Image:
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
    return shaded(picture, 0.25, 11)


def puppy() -> Image.Image:
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
    return shaded(picture, 0.15, 12)


def digit() -> Image.Image:
    """The first handwritten 4 of scikit-learn's set, to be called a 9."""
    digits = datasets.load_digits()
    four = digits.images[int(np.argmax(digits.target == 4))] / 16
    return to_picture(four).resize(SIZE, Image.Resampling.NEAREST).convert("RGB")


def rings() -> Image.Image:
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    wave = 0.5 + 0.5 * np.cos(np.hypot(x - SIZE[0] / 2, y - SIZE[1] / 2) / 5)
    return to_picture(wave[..., None] * np.array([1.0, 0.9, 0.8]))


PICTURES = (portrait, puppy, digit, rings, lit_from_above, lit_from_below, noise, white_noise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for draw in PICTURES:
        draw().save(folder / f"{draw.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()

"""Draw the picture of the front page, and the social preview made from it.

    python tools/front_page.py

Each pixel is one training run of the same small network: two layers, each with its own learning rate. Takes minutes.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image, ImageDraw, ImageFont

OUT = Path(__file__).resolve().parent.parent / "book" / "_static" / "front"
SIZE = 1200, 500
SAMPLES = 2  # runs a pixel, along each side
STEPS = 250
FIRST, SECOND = (0.4, 1.9), (-0.95, -0.2)  # decimal logarithms of the rates: of the first layer, of the second
UNITS = 8
CHUNK = 4000

CONVERGED = LinearSegmentedColormap.from_list("converged", ["#06203c", "#0b4f83", "#4f9bc9", "#cfe6f2", "#ffffff"])
DIVERGED = LinearSegmentedColormap.from_list("diverged", ["#ffe9b8", "#f5a045", "#cf4a22", "#7d1620", "#3a0812"])


def outcomes(width: int, height: int) -> np.ndarray:
    """For each pair of rates the mean loss over the run, as a share of the first, or minus the step of divergence."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(UNITS, UNITS, generator=generator), torch.randn(UNITS, 1, generator=generator)
    first, second = (torch.randn(UNITS, n, generator=generator) / UNITS**0.5 for n in (UNITS, 1))
    rate1 = torch.logspace(*FIRST, width).repeat(height)
    rate2 = torch.logspace(*SECOND, height).flip(0).repeat_interleave(width)
    start = (((x @ first).tanh() @ second - y) ** 2).mean().item()
    result = np.empty(width * height, dtype=np.float32)
    for low in range(0, width * height, CHUNK):
        runs = torch.arange(low, min(low + CHUNK, width * height))
        state = [
            runs, rate1[runs, None, None], rate2[runs, None, None],
            first.expand(len(runs), -1, -1), second.expand(len(runs), -1, -1), torch.zeros(len(runs)),
        ]  # fmt: skip
        for t in range(STEPS):
            runs, eta1, eta2, w1, w2, total = state
            hidden = (x @ w1).tanh()
            error = hidden @ w2 - y
            loss = (error**2).mean((1, 2)) / start
            lost = ~(loss < 1e5)
            result[runs[lost].numpy()] = -(t + 1)
            slope = 2 * error / UNITS
            g1 = x.T @ ((slope @ w2.mT) * (1 - hidden**2))
            state = [runs, eta1, eta2, w1 - eta1 * g1, w2 - eta2 * (hidden.mT @ slope), total + loss.clamp(max=1)]
            if lost.any():
                state = [part[~lost] for part in state]
                loss = loss[~lost]
        share = torch.where(loss < 1, state[5] / STEPS, torch.tensor(-float(STEPS)))
        result[state[0].numpy()] = share.numpy()
    return result.reshape(height, width)


def paint(result: np.ndarray) -> Image.Image:
    fell = result >= 0
    share = np.clip((np.log10(np.where(fell, result, 1)) + 2.1) / 2.1, 0, 1)
    lasted = np.clip(np.log(np.where(fell, 1, -result)) / np.log(STEPS), 0, 1)
    colours = np.where(fell[..., None], CONVERGED(share), DIVERGED(1 - lasted))[..., :3]
    return Image.fromarray((255 * colours).astype(np.uint8)).resize(SIZE, Image.Resampling.BOX)


def social(picture: Image.Image) -> Image.Image:
    """1200 x 630: the picture, and the book's name under it."""
    card = Image.new("RGB", (1200, 630), "#06203c")
    card.paste(picture, (0, 0))
    pen = ImageDraw.Draw(card)
    fonts = Path(plt.matplotlib.get_data_path()) / "fonts" / "ttf"
    pen.text((40, 518), "The Learning Rate", "white", ImageFont.truetype(fonts / "DejaVuSans-Bold.ttf", 46))
    line = "Derived, measured over seeds, and every piece of advice given a verdict"
    pen.text((40, 580), line, "#cfe6f2", ImageFont.truetype(fonts / "DejaVuSans.ttf", 25))
    return card


def main() -> None:
    OUT.mkdir(exist_ok=True)
    picture = paint(outcomes(SAMPLES * SIZE[0], SAMPLES * SIZE[1]))
    picture.save(OUT / "boundary.jpg", quality=82, optimize=True, progressive=True)
    social(picture).save(OUT / "social.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()

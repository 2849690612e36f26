"""One figure style for the whole book: colour-blind safe colours, varied dashes, labels on the lines."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

__all__ = ["COLORS", "DASHES", "label_lines", "band", "dot_intervals"]

# Okabe and Ito's palette, in an order in which neighbours differ in lightness too; yellow is left out on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1)), (0, (8, 2)), (0, (2, 2)))


def use_style() -> None:
    """Make the book's style matplotlib's default for this process."""
    cycle = cycler(color=COLORS) + cycler(linestyle=DASHES)
    plt.style.use(["default", "lrlib.book", {"axes.prop_cycle": cycle}])


def label_lines(ax: plt.Axes) -> None:
    """Write each line's label beside its last point, in its colour, moved apart where they would overlap.

    Args:
        ax: axes whose labelled lines are to be named; it gets no legend.
    """
    dpi = ax.figure.dpi
    ax.figure.canvas.draw()
    ends = []
    for line in ax.get_lines():
        points, label = np.asarray(line.get_xydata()), str(line.get_label())
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) and not label.startswith("_"):
            height = line.get_transform().transform(points[-1])[1]
            ends.append((height, points[-1], line, label))
    ends.sort(key=lambda end: end[0])
    heights = np.array([height for height, *_ in ends])
    least = np.arange(len(ends)) * 1.25 * plt.rcParams["font.size"] * dpi / 72  # from the lowest label to each
    moved = np.maximum.accumulate(heights.clip(ax.bbox.y0, ax.bbox.y1) - least)
    moved = np.minimum(moved, ax.bbox.y1 - least.max(initial=0.0)) + least
    for (height, point, line, label), y in zip(ends, moved, strict=True):
        place, rise = line.get_transform(), (y - height) * 72 / dpi
        text = ax.annotate(label, point, (4, rise), place, "offset points", annotation_clip=False)
        text.set(color=line.get_color(), va="center", fontsize=9.5)


def band(ax: plt.Axes, x: Sequence[float], runs: np.ndarray, label: str, **line) -> None:
    """The mean over runs as a line, with a band of one standard deviation.

    Args:
        ax: axes to draw into.
        x: shape (points,).
        runs: shape (runs, points), at least 2 runs.
        label: name of the line.
        line: further arguments of `Axes.plot`.

    Raises:
        ValueError: fewer than 2 runs.
    """
    runs = np.asarray(runs, dtype=float)
    if runs.ndim != 2 or len(runs) < 2:
        raise ValueError(f"runs: has shape {runs.shape}, must be (runs >= 2, points)")
    mean, std = runs.mean(0), runs.std(0, ddof=1)
    (drawn,) = ax.plot(x, mean, label=label, **line)
    ax.fill_between(x, mean - std, mean + std, color=drawn.get_color(), alpha=0.15, linewidth=0)


def dot_intervals(ax: plt.Axes, values: Mapping[str, Sequence[float]], unit: str) -> None:
    """One row per treatment: every seed as a faint dot, the mean as a large one with one standard deviation.

    Args:
        ax: axes to draw into.
        values: from a treatment's name to one finite value per seed, at least 2; drawn from top to bottom.
        unit: label of the value axis.

    Raises:
        ValueError: a treatment has fewer than 2 seeds, or a value is not finite.
    """
    found = {name: np.asarray(runs, dtype=float) for name, runs in values.items()}
    for name, seeds in found.items():
        if seeds.ndim != 1 or len(seeds) < 2 or not np.isfinite(seeds).all():
            raise ValueError(f"values[{name!r}]={seeds}: must be one finite value per seed, at least 2 seeds")
    for row, seeds in enumerate(found.values()):
        color = COLORS[row % len(COLORS)]
        ax.plot(seeds, np.full(len(seeds), row), "o", ms=4, alpha=0.3, color=color, linestyle="none")
        ax.errorbar(seeds.mean(), row, xerr=seeds.std(ddof=1), fmt="o", ms=7, color=color, capsize=3, linestyle="none")
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlabel(unit)
    ax.grid(axis="y", visible=False)

"""Loss planes beside the PyPI package loss-landscapes: the same network, data, loss and directions, in one run.

    python benchmarks/landscape.py

The package comes with `pip install -e .[bench]`; without it only our own times are printed. Runs of the two alternate,
and the fastest of each counts. The package's loop is timed as it is published, through its `random_plane`.
"""

import copy
import statistics
import time

import numpy as np
import torch
from machine import describe
from torch import nn
from torch.nn import functional as F

import lrlib

try:
    import loss_landscapes
    from loss_landscapes.metrics import Loss
except ImportError:
    loss_landscapes = None

THREADS = 2
REPEATS = 7
STEPS = 25


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ours(model, x, y, steps):
    directions = [lrlib.random_direction(model, seed, vectors="entry") for seed in (1, 2)]
    a = np.linspace(-1, 1, steps)
    return lrlib.loss_plane(model, x, y, directions, a, a)


def theirs(model, x, y, steps):
    return loss_landscapes.random_plane(model, Loss(F.cross_entropy, x, y), 1, steps, "filter", deepcopy_model=True)


def compare(name, model, x, y):
    model.eval()
    ours(model, x, y, 3), theirs(model, x, y, 3)
    pairs = [
        (seconds(lambda: ours(model, x, y, STEPS)), seconds(lambda: theirs(model, x, y, STEPS))) for _ in range(REPEATS)
    ]
    ratio = min(b for _, b in pairs) / min(a for a, _ in pairs)
    middle = statistics.median(b / a for a, b in pairs)
    points = STEPS**2
    print(
        f"{name:42} ours {1e3 * min(a for a, _ in pairs) / points:7.2f} ms a point   "
        f"loss-landscapes {1e3 * min(b for _, b in pairs) / points:7.2f} ms   "
        f"{ratio:4.2f} times as fast (median of pairs {middle:.2f}; goal >= 1)"
    )


def same_plane_check(model, x, y):
    """Both evaluate the same point to the same loss."""
    ours_at_centre = ours(model.eval(), x, y, 3).loss[1, 1]
    theirs_at_centre = loss_landscapes.point(copy.deepcopy(model), Loss(F.cross_entropy, x, y))
    assert abs(ours_at_centre - theirs_at_centre) < 1e-5 * abs(theirs_at_centre)


def main():
    torch.set_num_threads(THREADS)
    digits = lrlib.digits()
    x, y = digits.x_train[:512], digits.y_train[:512]
    with lrlib.seeded(0):
        wide = torch.randn(1000, 1, 28, 28), torch.randint(0, 10, (1000,))
        networks: list[tuple[str, nn.Module, tuple]] = [
            ("MLP 64-32-10, 128 digits", lrlib.mlp(64, 32, 10), (x[:128], y[:128])),
            ("MLP 64-32-10, 512 digits", lrlib.mlp(64, 32, 10), (x, y)),
            ("MLP 64-128-128-10, 512 digits", lrlib.mlp(64, 128, 128, 10), (x, y)),
            ("MLP 784-100-10, 1,000 pictures", lrlib.mlp(784, 100, 10), wide),
            ("conv net of width 4, 128 digits", lrlib.conv_net(4), (x[:128], y[:128])),
            ("conv net of width 8, 512 digits", lrlib.conv_net(8), (x, y)),
            ("PreResNet-8 of width 16, 512 digits", lrlib.PreResNet(8, 16, in_channels=1), (x, y)),
        ]
        for _, model, _ in networks:  # the package divides by the norm of a bias, which is 0 in a fresh norm layer
            for p in model.parameters():
                p.data.add_(torch.randn_like(p), alpha=0.01)
    print(describe(x.device))
    print(f"planes of {STEPS} x {STEPS} points, float32, fastest of {REPEATS} alternating runs")
    if loss_landscapes is None:
        print("loss-landscapes is not installed (pip install -e .[bench]): no comparison")
    else:
        for name, model, data in networks:
            same_plane_check(model, *data)
            compare(name, model, *data)
    model = networks[-1][1].eval()
    took = seconds(lambda: ours(model, x, y, 51))
    print(f"PreResNet-8 of width 16 on 512 digits, 51 x 51 points: {took:.1f} s (goal < 60 s)")


if __name__ == "__main__":
    main()

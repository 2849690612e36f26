"""Grids of 10 rates x 10 seeds beside the plain PyTorch loop, in one run.

Prints, for each network, the seconds of a whole grid in the plain loop (as many updates of single networks with one
thread or with all, whichever is faster, from one run's time) and in `lrlib.train_grid`, their ratio, and the way that
it chose. Where there is a GPU, everything is on it. `python benchmarks/replicas.py 2000` takes more than 400 updates a
run.
"""

import statistics
import sys
import time

import joblib
import numpy as np
import torch
from torch.nn import functional as F

import lrlib

REPEATS = 3
RATES, SEEDS = np.geomspace(0.01, 0.1, 10).tolist(), range(10)


def blocks(size: int) -> lrlib.Dataset:
    """Random pictures of `size` pixels with labels, as many as of MNIST where speed needs no more."""
    x = torch.randn(12_000, 1, 1, size, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12_000) % 10
    return lrlib.Dataset("random", x[:10_000], y[:10_000], x[10_000:], y[10_000:], 10)


CASES = {  # network, data, batch size, share of the updates
    "MLP 64-32-10, batch 64": (lambda seed: lrlib.mlp(64, 32, 10), lrlib.digits(), 64, 1.0),
    "MLP 784-20-10, batch 1000": (lambda seed: lrlib.mlp(784, 20, 10), blocks(784), 1000, 0.5),
    "MLP 784-128-10, batch 128": (lambda seed: lrlib.mlp(784, 128, 10), blocks(784), 128, 0.5),
    "PreResNet-8, batch 64": (lambda seed: lrlib.PreResNet(8, in_channels=1), lrlib.digits(), 64, 0.1),
}


def plain(make_model, data, batch_size: int, updates: int) -> float:
    """Seconds of one update in the plainest loop, its loss read as every loop that watches it does."""
    model = make_model(0).to(data.x_train.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    order = lrlib.batches(len(data.x_train), batch_size, updates + 5, seed=0)
    for t, rows in enumerate(order):
        if t == 5:
            started = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data.x_train[rows]), data.y_train[rows])
        loss.backward()
        loss.item()
        optimizer.step()
    return (time.perf_counter() - started) / updates


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = joblib.cpu_count()
    print(f"{len(RATES)} rates x {len(SEEDS)} seeds on {where}, {cores} cores")
    for name, (make_model, data, batch_size, share) in CASES.items():
        data, each = data.to(where), max(10, round(share * steps))
        ratios, seconds = [], []
        for _ in range(REPEATS):
            singles = []
            for threads in {1, cores}:
                torch.set_num_threads(threads)
                singles.append(plain(make_model, data, batch_size, each))
            grid = lrlib.train_grid(make_model, data, RATES, SEEDS, steps=each, batch_size=batch_size)
            loop = min(singles) * len(RATES) * len(SEEDS) * each
            ratios.append(loop / grid.seconds)
            seconds.append((loop, grid.seconds))
        loop, ours = (statistics.median(column) for column in zip(*seconds, strict=True))
        print(
            f"{name:26} loop {loop:6.1f} s, train_grid {ours:6.1f} s, ratio {statistics.median(ratios):5.2f} "
            f"({', '.join(f'{ratio:.2f}' for ratio in ratios)}), {each} updates a run; "
            f"{grid.way}, {grid.workers or 'no'} workers: {grid.why}"
        )


if __name__ == "__main__":
    main()
